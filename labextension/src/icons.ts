import { LabIcon } from '@jupyterlab/ui-components';

import svgstr from '../style/icons/apptainer.svg';

/** A box: an image, or what runs in one. */
export const apptainerIcon = new LabIcon({
  name: 'jupyter-apptainer:apptainer',
  svgstr
});
