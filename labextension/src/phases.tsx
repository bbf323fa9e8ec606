import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { Event } from '@jupyterlab/services';
import { IStatusBar } from '@jupyterlab/statusbar';
import {
  ITranslator,
  nullTranslator,
  TranslationBundle
} from '@jupyterlab/translation';
import { VDomModel, VDomRenderer } from '@jupyterlab/ui-components';

const KERNEL_START =
  'https://events.jupyter.org/jupyter_apptainer/kernel_start/v1';
const TICK_MS = 200;
/** A failure stays to be read; Jupyter's own dialog has the whole message. */
const FAILURE_SHOWN_MS = 30_000;

/** What the server tells of a phase; source: kernel_start.schema.json. */
export interface IPhaseEvent {
  kernel_id: string;
  kernel_name?: string;
  phase: 'image' | 'overlay' | 'instance' | 'connect';
  status: 'started' | 'done' | 'failed';
  /** Since the phase began. */
  seconds: number;
  message?: string;
  hint?: string;
}

interface IStart {
  name: string;
  phase: IPhaseEvent['phase'];
  isFailed: boolean;
  /** Milliseconds of `performance.now()` when the first phase began. */
  beganAt: number;
  tip: string;
}

/** The starts that are under way, by kernel. */
export class StartsModel extends VDomModel {
  /** Take note of an event. */
  note(event: IPhaseEvent): void {
    const start = this._starts.get(event.kernel_id) ?? {
      name: event.kernel_name ?? '',
      phase: event.phase,
      isFailed: false,
      beganAt: performance.now() - event.seconds * 1000,
      tip: ''
    };
    start.phase = event.phase;
    if (event.status === 'done' && event.phase === 'connect') {
      this._starts.delete(event.kernel_id);
    } else {
      if (event.status === 'failed') {
        start.isFailed = true;
        start.tip = [event.message, event.hint].filter(Boolean).join('\n');
        window.setTimeout(() => this._forget(event.kernel_id, start), FAILURE_SHOWN_MS);
      }
      this._starts.set(event.kernel_id, start);
    }
    this._tick();
    this.stateChanged.emit();
  }

  /** The youngest start. */
  get current(): IStart | undefined {
    return [...this._starts.values()].pop();
  }

  override dispose(): void {
    window.clearInterval(this._timer);
    super.dispose();
  }

  private _forget(kernelId: string, start: IStart): void {
    if (this._starts.get(kernelId) === start) {
      this._starts.delete(kernelId);
      this.stateChanged.emit();
    }
  }

  /** The seconds run only while something starts. */
  private _tick(): void {
    const isNeeded = [...this._starts.values()].some(start => !start.isFailed);
    if (isNeeded && this._timer === undefined) {
      this._timer = window.setInterval(() => this.stateChanged.emit(), TICK_MS);
    } else if (!isNeeded) {
      window.clearInterval(this._timer);
      this._timer = undefined;
    }
  }

  private _starts = new Map<string, IStart>();
  private _timer: number | undefined;
}

class StartStatus extends VDomRenderer<StartsModel> {
  constructor(model: StartsModel, trans: TranslationBundle) {
    super(model);
    this._trans = trans;
    this.addClass('jp-apptainer-status');
    this.node.setAttribute('role', 'status');
  }

  protected override render(): JSX.Element | null {
    const start = this.model.current;
    if (!start) {
      return null;
    }
    const trans = this._trans;
    const phase = describePhase(start.phase, trans);
    if (start.isFailed) {
      return (
        <span title={start.tip}>
          {trans.__('%1: start failed (%2)', start.name, phase)}
        </span>
      );
    }
    const seconds = ((performance.now() - start.beganAt) / 1000).toFixed(1);
    return (
      <span>
        {start.name}: {phase}{' '}
        {/* Screen readers hear the phase, not every tenth of a second. */}
        <span aria-hidden="true">{trans.__('%1 s', seconds)}</span>
      </span>
    );
  }

  private _trans: TranslationBundle;
}

function describePhase(
  phase: IPhaseEvent['phase'],
  trans: TranslationBundle
): string {
  switch (phase) {
    case 'image':
      return trans.__('looking at the image');
    case 'overlay':
      return trans.__('preparing the overlay');
    case 'instance':
      return trans.__('starting the container');
    case 'connect':
      return trans.__('connecting to the kernel');
  }
}

/** While a container kernel starts, the status bar says which phase it is in, with seconds. */
export const phasesPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:phases',
  description: 'Shows the phases of the start of a container kernel.',
  autoStart: true,
  optional: [IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ): void => {
    if (!statusBar) {
      // Jupyter Notebook has none.
      return;
    }
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const model = new StartsModel();
    const item = new StartStatus(model, trans);
    statusBar.registerStatusItem('jupyter-apptainer:phases', {
      item,
      align: 'middle',
      isActive: () => model.current !== undefined,
      activeStateChanged: model.stateChanged
    });
    const note = (_: unknown, event: Event.Emission): void => {
      if (event.schema_id === KERNEL_START) {
        model.note(event as unknown as IPhaseEvent);
      }
    };
    app.serviceManager.events.stream.connect(note);
    item.disposed.connect(() => {
      app.serviceManager.events.stream.disconnect(note);
      model.dispose();
    });
  }
};
