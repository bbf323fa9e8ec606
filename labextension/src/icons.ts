import { LabIcon } from '@jupyterlab/ui-components';

import svgstr from '../style/icons/apptainer.svg';
import gpuSvg from '../style/icons/gpu.svg';
import problemSvg from '../style/icons/problem.svg';

/** A box: an image, or what runs in one. */
export const apptainerIcon = new LabIcon({
  name: 'jupyter-apptainer:apptainer',
  svgstr
});

/** A container that uses a GPU. */
export const gpuIcon = new LabIcon({ name: 'jupyter-apptainer:gpu', svgstr: gpuSvg });

/** A container that cannot start. */
export const problemIcon = new LabIcon({ name: 'jupyter-apptainer:problem', svgstr: problemSvg });
