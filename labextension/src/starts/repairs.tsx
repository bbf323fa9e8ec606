import { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, ISessionContext, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { TranslationBundle } from '@jupyterlab/translation';

import { Repair, RepairAnswer, request, Start } from '../api';
import { CommandIDs } from '../commandIDs';
import { nameOf } from '../format';
import { followTask } from '../follow';
import { showFailure } from '../section';

const JUST_NOW_S = 10;
const AGAIN = 'again';
const ENVIRONMENT = 'environment';
const OTHER = 'other-kernel';

/** Says why a start failed, and does what helps. choose: asks for another kernel. */
export class Mender {
  constructor(
    private _app: JupyterFrontEnd,
    private _notebooks: INotebookTracker | null,
    private _choose: (context: ISessionContext) => Promise<void>,
    private _trans: TranslationBundle
  ) {}

  /**
   * Before a kernel is chosen for a notebook: where its start has failed only just now, this is what to talk about.
   *
   * Returns whether that was so.
   */
  async recover(context: ISessionContext): Promise<boolean> {
    const starts = await request<Start[]>('GET', '/starts');
    const end = `/${localPath(context.path)}`;
    const start = starts.find(
      each => each.state === 'failed' && each.age_s < JUST_NOW_S && each.label.endsWith(end)
    );
    if (!start || this._settled.has(start.kernel_id)) {
      return false;
    }
    await this.mendOnce(start);
    return true;
  }

  /** Show a start that failed, but once: who asks again waits for the end of the first time. */
  async mendOnce(start: Start): Promise<void> {
    const asked = this._asked.get(start.kernel_id) ?? this.mend(start).catch(showFailure);
    this._asked.set(start.kernel_id, asked);
    await asked;
    this._asked.delete(start.kernel_id);
    this._settled.add(start.kernel_id);
  }

  /** Show a start that failed, and do what the person chooses. */
  async mend(start: Start): Promise<void> {
    const trans = this._trans;
    const name = this._app.serviceManager.kernelspecs.specs?.kernelspecs[start.kernelspec]?.display_name;
    const panel = this._findPanel(start);
    const answer = await showDialog({
      title: trans.__('“%1” did not start', name ?? start.kernelspec),
      body: start.error ? <Reason error={start.error} trans={trans} /> : '',
      buttons: this._buildButtons(start, panel)
    });
    const [chosen] = answer.button.actions;
    const context = panel?.sessionContext;
    if (chosen === OTHER && context) {
      // A kernel that does not start either has a dialog of its own.
      await this._choose(context).catch(() => undefined);
    } else if (chosen === ENVIRONMENT && panel) {
      this._app.shell.activateById(panel.id);
      await this._app.commands.execute(CommandIDs.chooseEnvironment, { kernel: start.kernelspec });
    } else if (chosen === AGAIN || (chosen && (await this._repair(start, chosen)))) {
      await context?.changeKernel({ name: start.kernelspec }).catch(() => undefined);
    }
  }

  private _buildButtons(start: Start, panel: NotebookPanel | undefined): Dialog.IButton[] {
    const trans = this._trans;
    const buttons = [Dialog.cancelButton({ label: trans.__('Close') })];
    if (panel) {
      buttons.push(
        Dialog.createButton({ label: trans.__('Another kernel…'), actions: [OTHER] }),
        Dialog.createButton({ label: trans.__('Environment…'), actions: [ENVIRONMENT] }),
        Dialog.createButton({ label: trans.__('Start again'), actions: [AGAIN] })
      );
    }
    for (const repair of start.repairs) {
      const caption = [repair.subject, repair.source].filter(Boolean).join('\n');
      const label = describeRepair(repair, trans);
      buttons.push(
        repair.kind === 'end-holder'
          ? Dialog.warnButton({ label, caption, actions: [repair.kind] })
          : Dialog.okButton({ label, caption, actions: [repair.kind] })
      );
    }
    return buttons;
  }

  /** Returns whether a start is worth another try. */
  private async _repair(start: Start, kind: string): Promise<boolean> {
    const path = `/starts/${encodeURIComponent(start.kernel_id)}/repairs`;
    const { task } = await request<RepairAnswer>('POST', path, { kind });
    return !task || (await followTask(task, this._trans, this._app.commands)) === 'done';
  }

  /** The notebook that waits for the kernel. */
  private _findPanel(start: Start): NotebookPanel | undefined {
    const isWaiting = (panel: NotebookPanel): boolean => !panel.sessionContext.session?.kernel;
    const current = this._notebooks?.currentWidget;
    const own = this._notebooks?.find(
      panel => isWaiting(panel) && start.label.endsWith(`/${localPath(panel.context.path)}`)
    );
    return own ?? (!start.label && current && isWaiting(current) ? current : undefined);
  }

  private _asked = new Map<string, Promise<void>>();
  private _settled = new Set<string>();
}

/** Without the drive that a file lies on. */
function localPath(path: string): string {
  return path.slice(path.indexOf(':') + 1);
}

function Reason(props: { error: NonNullable<Start['error']>; trans: TranslationBundle }): JSX.Element {
  const { message, hint, log_tail } = props.error;
  return (
    <div className="jp-apptainer-reason">
      <p>{message}</p>
      {hint && <p className="jp-apptainer-hint">{hint}</p>}
      {log_tail.length > 0 && (
        <details>
          <summary>{props.trans.__('Last lines')}</summary>
          <pre tabIndex={0}>{log_tail.join('\n')}</pre>
        </details>
      )}
    </div>
  );
}

function describeRepair(repair: Repair, trans: TranslationBundle): string {
  const name = nameOf(repair.subject);
  switch (repair.kind) {
    case 'pull-image':
      return trans.__('Pull the image');
    case 'install-engine':
      return trans.__('Install Apptainer');
    case 'create-overlay':
      return trans.__('Create %1', name);
    case 'check-overlay':
      return trans.__('Repair %1', name);
    case 'grow-overlay':
      return trans.__('Enlarge %1', name);
    case 'end-holder':
      return trans.__('Shut down %1', nameOf(repair.detail) || name);
    case 'make-folder':
      return trans.__('Make the folder %1', name);
  }
}
