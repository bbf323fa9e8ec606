import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import {
  Dialog,
  ICommandPalette,
  ISessionContext,
  ISessionContextDialogs,
  SessionContextDialogs,
  showDialog
} from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { Event } from '@jupyterlab/services';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator, TranslationBundle } from '@jupyterlab/translation';

import { ApiError, request, Start } from '../api';
import { CommandIDs } from '../commandIDs';
import { KernelDialogs } from '../kernels/dialogs';
import { showFailure } from '../section';
import { IPhaseEvent, KERNEL_START, StartsModel } from './model';
import { FailureWatch } from './failures';
import { Mender } from './repairs';
import { IStartActions, StartStatus } from './status';
import { StartToast } from './toast';

const WITH_KERNEL = {
  args: {
    type: 'object' as const,
    properties: { kernel_id: { type: 'string', description: 'By default the newest.' } }
  }
};

/** Starts of container kernels: phases with seconds, cancel, and what helps one that failed. */
export const startsPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:starts',
  description: 'Shows the phases of the start of a container kernel, cancels it, and mends one that failed.',
  autoStart: true,
  optional: [ISessionContextDialogs, INotebookTracker, IStatusBar, ICommandPalette, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    dialogs: ISessionContextDialogs | null,
    notebooks: INotebookTracker | null,
    statusBar: IStatusBar | null,
    palette: ICommandPalette | null,
    translator: ITranslator | null
  ): void => {
    const { commands, serviceManager } = app;
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const model = new StartsModel();
    const plain = dialogs ?? new SessionContextDialogs({ translator: translator ?? undefined });
    const choose = (context: ISessionContext): Promise<void> =>
      plain instanceof KernelDialogs ? plain.choose(context) : plain.selectKernel(context);
    const mender = new Mender(app, notebooks, choose, trans);
    if (plain instanceof KernelDialogs) {
      plain.recover = context => mender.recover(context);
    }
    const actions: IStartActions = {
      cancel: kernelId => void commands.execute(CommandIDs.cancelStart, { kernel_id: kernelId }),
      repair: kernelId => void commands.execute(CommandIDs.repairStart, { kernel_id: kernelId })
    };
    const failures = new FailureWatch(kernelId => {
      void findStart('failed', kernelId).then(start => start && mender.mendOnce(start)).catch(showFailure);
    });
    commands.addCommand(CommandIDs.cancelStart, {
      label: trans.__('Cancel the start of a kernel'),
      caption: trans.__('End the start of a container kernel, and remove what it has made so far'),
      describedBy: WITH_KERNEL,
      execute: args => cancel(args.kernel_id as string | undefined).catch(showFailure)
    });
    commands.addCommand(CommandIDs.repairStart, {
      label: trans.__('Repair the start of a kernel…'),
      caption: trans.__('Show why the newest start has failed, and what helps'),
      describedBy: WITH_KERNEL,
      execute: async args => {
        try {
          const start = await findStart('failed', args.kernel_id as string | undefined);
          await (start ? mender.mend(start) : tellNone(trans));
        } catch (error) {
          await showFailure(error);
        }
      }
    });
    for (const command of [CommandIDs.cancelStart, CommandIDs.repairStart]) {
      palette?.addItem({ command, category: trans.__('Apptainer') });
    }
    if (statusBar) {
      statusBar.registerStatusItem('jupyter-apptainer:starts', {
        item: new StartStatus(model, actions, trans),
        align: 'middle',
        isActive: () => model.current !== undefined,
        activeStateChanged: model.stateChanged
      });
    } else {
      const isWaiting = (): boolean => notebooks?.currentWidget?.sessionContext.session === null;
      new StartToast(model, isWaiting, actions, trans);
    }
    serviceManager.events.stream.connect((_: unknown, emission: Event.Emission) => {
      if (emission.schema_id === KERNEL_START) {
        const event = emission as unknown as IPhaseEvent;
        model.note(event);
        failures.note(event);
      }
    });
  }
};

async function tellNone(trans: TranslationBundle): Promise<void> {
  await showDialog({
    title: trans.__('No start has failed'),
    buttons: [Dialog.okButton({ label: trans.__('Close') })]
  });
}

async function cancel(kernelId: string | undefined): Promise<void> {
  const start = kernelId === undefined ? await findStart('starting') : { kernel_id: kernelId };
  try {
    await request('DELETE', `/starts/${encodeURIComponent(start?.kernel_id ?? '')}`);
  } catch (error) {
    // It was quicker: the kernel runs, or the start has failed.
    if (!(error instanceof ApiError) || error.status !== 404) {
      throw error;
    }
  }
}

async function findStart(state: Start['state'], kernelId?: string): Promise<Start | undefined> {
  const starts = await request<Start[]>('GET', '/starts');
  return starts.find(start => start.state === state && (kernelId === undefined || start.kernel_id === kernelId));
}
