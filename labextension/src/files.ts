import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { DEFINITION_MIME } from './definition';
import { apptainerIcon } from './icons';

/** Images and definition files have a name and an icon in the file browser. */
export const filesPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:files',
  description: 'Makes images (.sif) and definition files (.def) known to the file browser.',
  autoStart: true,
  optional: [ITranslator],
  activate: (app: JupyterFrontEnd, translator: ITranslator | null): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    app.docRegistry.addFileType({
      name: 'apptainer-sif',
      displayName: trans.__('Apptainer image'),
      extensions: ['.sif'],
      mimeTypes: ['application/vnd.sylabs.sif'],
      contentType: 'file',
      fileFormat: 'base64',
      icon: apptainerIcon
    });
    app.docRegistry.addFileType({
      name: 'apptainer-def',
      displayName: trans.__('Apptainer definition file'),
      extensions: ['.def'],
      mimeTypes: [DEFINITION_MIME],
      contentType: 'file',
      fileFormat: 'text',
      icon: apptainerIcon
    });
  }
};
