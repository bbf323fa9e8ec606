import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import {
  ITranslator,
  nullTranslator,
  TranslationBundle
} from '@jupyterlab/translation';

import { CommandIDs } from './commandIDs';
import { ask } from './dialogs';
import { isContainerKernel } from './kernels/described';
import { mergeValues, METADATA_KEY, readValues } from './settings';


/** The notebook's button "Environment": image, GPU, binds and overlays of its container, kept in the notebook. */
export const environmentPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:environment',
  description: "Changes the container of a notebook, and restarts its kernel.",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    palette: ICommandPalette | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const { commands, serviceManager, shell } = app;
    const getPanel = (): NotebookPanel | null =>
      notebooks.currentWidget !== null &&
      notebooks.currentWidget === shell.currentWidget
        ? notebooks.currentWidget
        : null;
    // The commands ask before kernelspecs are loaded, and once more when they are.
    const isInContainer = (panel: NotebookPanel | null): boolean => {
      const name = panel?.sessionContext.session?.kernel?.name ?? panel?.sessionContext.kernelPreference.name;
      return name ? isContainerKernel(serviceManager.kernelspecs.specs?.kernelspecs[name]?.metadata) : false;
    };
    commands.addCommand(CommandIDs.chooseEnvironment, {
      label: trans.__('Environment'),
      caption: trans.__('Change the image, GPU, folders and overlays of this notebook'),
      describedBy: {
        args: {
          type: 'object',
          properties: { kernel: { type: 'string', description: 'To start where none runs.' } }
        }
      },
      isEnabled: () => isInContainer(getPanel()),
      isVisible: () => isInContainer(getPanel()),
      execute: async args => {
        const panel = getPanel();
        if (panel) {
          await changeEnvironment(panel, args.kernel as string | undefined, trans);
        }
      }
    });
    const changed = (): void => commands.notifyCommandChanged(CommandIDs.chooseEnvironment);
    serviceManager.kernelspecs.specsChanged.connect(changed);
    notebooks.currentChanged.connect(changed);
    notebooks.widgetAdded.connect((_, panel) => panel.sessionContext.kernelChanged.connect(changed));
    palette?.addItem({ command: CommandIDs.chooseEnvironment, category: trans.__('Apptainer') });
  }
};

async function changeEnvironment(
  panel: NotebookPanel,
  kernel: string | undefined,
  trans: TranslationBundle
): Promise<void> {
  const model = panel.content.model;
  if (!model) {
    return;
  }
  const before = model.getMetadata(METADATA_KEY);
  const values = readValues(before);
  const answers = await ask(
    trans.__('Environment of this notebook'),
    [
      {
        name: 'image',
        label: trans.__('Image'),
        value: values.image,
        placeholder: trans.__('as in the kernel'),
        help: trans.__('NAME.sif, NAME.sif@sha256:DIGEST, or a path')
      },
      {
        name: 'nv',
        label: trans.__('NVIDIA GPU'),
        value: values.nv,
        choices: [
          ['', trans.__('as in the kernel')],
          ['auto', trans.__('where this machine has one')],
          ['true', trans.__('yes')],
          ['false', trans.__('no')]
        ]
      },
      {
        name: 'binds',
        label: trans.__('Folders to bind'),
        value: values.binds,
        help: trans.__('One per line: NAME, or SOURCE[:DESTINATION[:ro]]'),
        kind: 'lines'
      },
      {
        name: 'overlays',
        label: trans.__('Overlays'),
        value: values.overlays,
        help: trans.__('One per line: FILE, FILE:ro, auto, or tmpfs'),
        kind: 'lines'
      }
    ],
    trans.__('Save and start anew'),
    trans
  );
  if (!answers) {
    return;
  }
  const after = mergeValues(before, answers);
  if (after === undefined) {
    model.deleteMetadata(METADATA_KEY);
  } else {
    model.setMetadata(METADATA_KEY, after);
  }
  // The server reads the settings from the saved file when a kernel starts; a restart in place keeps its container.
  await panel.context.save();
  const name = panel.sessionContext.session?.kernel?.name ?? kernel;
  if (name) {
    await panel.sessionContext.shutdown();
    await panel.sessionContext.changeKernel({ name });
  }
}
