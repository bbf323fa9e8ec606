import { VDomModel } from '@jupyterlab/ui-components';

export const KERNEL_START = 'https://events.jupyter.org/jupyter_apptainer/kernel_start/v1';
const TICK_MS = 200;
/** A failure stays to be read. */
const FAILURE_SHOWN_MS = 30_000;
const CANCELLED = 'start-cancelled';

/** What the server tells of a phase; source: kernel_start.schema.json. */
export interface IPhaseEvent {
  kernel_id: string;
  kernel_name?: string;
  phase: 'image' | 'overlay' | 'queue' | 'instance' | 'connect';
  status: 'started' | 'done' | 'failed';
  /** Since the phase began. */
  seconds: number;
  code?: string;
  message?: string;
  hint?: string;
}

/** A start that is under way, or that has failed lately. */
export interface IStart {
  kernelId: string;
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
      kernelId: event.kernel_id,
      name: event.kernel_name ?? '',
      phase: event.phase,
      isFailed: false,
      beganAt: performance.now() - event.seconds * 1000,
      tip: ''
    };
    start.phase = event.phase;
    const isOver = event.status === 'done' && event.phase === 'connect';
    if (isOver || event.code === CANCELLED) {
      this._starts.delete(event.kernel_id);
    } else {
      if (event.status === 'failed') {
        start.isFailed = true;
        start.tip = [event.message, event.hint].filter(Boolean).join('\n');
        window.setTimeout(() => this._forget(start), FAILURE_SHOWN_MS);
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

  /** The youngest start that can be cancelled. */
  get running(): IStart | undefined {
    return [...this._starts.values()].filter(start => !start.isFailed).pop();
  }

  override dispose(): void {
    window.clearInterval(this._timer);
    super.dispose();
  }

  private _forget(start: IStart): void {
    if (this._starts.get(start.kernelId) === start) {
      this._starts.delete(start.kernelId);
      this.stateChanged.emit();
    }
  }

  /** The seconds run only while something starts. */
  private _tick(): void {
    const isNeeded = this.running !== undefined;
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
