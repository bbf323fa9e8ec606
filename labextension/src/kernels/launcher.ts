import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { MainAreaWidget } from '@jupyterlab/apputils';
import { ILauncher, Launcher } from '@jupyterlab/launcher';
import { ITranslator, nullTranslator, TranslationBundle } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';
import { IDisposable } from '@lumino/disposable';

import { CommandIDs } from '../commandIDs';
import { apptainerIcon, gpuIcon, problemIcon } from '../icons';
import { IDescribed, listKernels, loadHealth } from './described';

/** JupyterLab has its own: 0 for notebooks, 20 for consoles. */
const AFTER_NOTEBOOKS = 10;
const ICONS: Record<string, LabIcon> = { gpu: gpuIcon, problem: problemIcon };

/** In JupyterLab's launcher: a card for each container kernel, with its image, GPU and health. */
export const launcherPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:launcher',
  description: 'Shows container kernels in the launcher, with image, GPU and health.',
  autoStart: true,
  optional: [ILauncher, ITranslator],
  activate: (app: JupyterFrontEnd, launcher: ILauncher | null, translator: ITranslator | null): void => {
    if (!launcher) {
      return;
    }
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    addCommand(app, trans);
    const cards = new Cards(launcher, trans.__('Apptainer'));
    const isLooking = (): boolean => {
      const front = app.shell.currentWidget;
      return front instanceof MainAreaWidget && front.content instanceof Launcher;
    };
    const show = async (): Promise<void> => {
      // What needs no question is there at once.
      cards.show(listKernels(app, trans, cards.health));
      if (isLooking() && listKernels(app, trans).length) {
        cards.health = await loadHealth(trans);
        cards.show(listKernels(app, trans, cards.health));
      }
    };
    void app.restored.then(() => {
      void show();
      app.serviceManager.kernelspecs.specsChanged.connect(() => void show());
      app.shell.currentChanged?.connect(() => isLooking() && void show());
    });
  }
};

function addCommand(app: JupyterFrontEnd, trans: TranslationBundle): void {
  const { commands } = app;
  commands.addCommand(CommandIDs.launch, {
    label: args => String(args.label ?? trans.__('New notebook')),
    caption: args => String(args.caption ?? ''),
    icon: args => ICONS[String(args.state)] ?? apptainerIcon,
    describedBy: {
      args: {
        type: 'object',
        required: ['kernel'],
        properties: {
          kernel: { type: 'string' },
          cwd: { type: 'string' },
          label: { type: 'string' },
          caption: { type: 'string' },
          state: { type: 'string', description: 'ready, gpu or problem: chooses the icon.' }
        }
      }
    },
    execute: args =>
      commands.execute('notebook:create-new', { kernelName: String(args.kernel), cwd: args.cwd ?? '' })
  });
}

/** The cards that are there now; they change only where what they say does. */
class Cards {
  constructor(
    private _launcher: ILauncher,
    private _category: string
  ) {}

  health: ReadonlyMap<string, string> = new Map();

  show(kernels: readonly IDescribed[]): void {
    const said = JSON.stringify(kernels);
    if (said === this._said) {
      return;
    }
    this._said = said;
    this._shown.splice(0).forEach(card => card.dispose());
    for (const kernel of kernels) {
      const args = {
        kernel: kernel.name,
        label: kernel.label,
        caption: kernel.problem ?? kernel.detail,
        state: kernel.problem ? 'problem' : kernel.hasGpu ? 'gpu' : 'ready'
      };
      this._shown.push(this._launcher.add({ command: CommandIDs.launch, args, category: this._category, categoryRank: AFTER_NOTEBOOKS }));
    }
  }

  private _said = '';
  private _shown: IDisposable[] = [];
}
