import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { PageConfig, PathExt } from '@jupyterlab/coreutils';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { CommandIDs } from './commandIDs';
import { DEFINITION_MIME } from './definition';
import { apptainerIcon } from './icons';

/** Images and definition files have a name and an icon in the file browser. */
export const filesPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:files',
  description: 'Makes images (.sif) and definition files (.def) known to the file browser.',
  autoStart: true,
  optional: [IFileBrowserFactory, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    browsers: IFileBrowserFactory | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const getSelected = (): string | undefined =>
      browsers?.tracker.currentWidget?.selectedItems().next().value?.path;
    app.commands.addCommand(CommandIDs.buildSelected, {
      label: trans.__('Build an image…'),
      icon: apptainerIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      isVisible: () => app.commands.hasCommand(CommandIDs.build) && getSelected() !== undefined,
      execute: () => app.commands.execute(CommandIDs.build, { path: getSelected() })
    });
    app.commands.addCommand(CommandIDs.makeKernelOfSelected, {
      label: trans.__('Make a kernel of an image…'),
      icon: apptainerIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      isVisible: () => app.commands.hasCommand(CommandIDs.makeKernel) && getSelected() !== undefined,
      execute: () =>
        app.commands.execute(CommandIDs.makeKernel, {
          image: PathExt.join(PageConfig.getOption('serverRoot'), getSelected() ?? '')
        })
    });
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
