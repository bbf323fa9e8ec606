import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { ApiError, request } from './api';

/**
 * One list of the server's, asked for while somebody sees it and never otherwise.
 *
 * Reading does not count as activity at the server, so a page that stays open does not keep a server alive.
 */
export class Resource<T> {
  /**
   * path: below the interface's base. intervalMs: how often it is asked again while it is seen.
   */
  constructor(
    readonly path: string,
    intervalMs: number
  ) {
    this._poll = new Poll({
      auto: false,
      factory: () => this._load(),
      frequency: buildFrequency(intervalMs),
      name: `jupyter-apptainer:${path}`,
      standby: 'when-hidden'
    });
  }

  /** What came last. */
  get data(): T | undefined {
    return this._data;
  }

  /** Why nothing came. */
  get error(): ApiError | undefined {
    return this._error;
  }

  /** Something came, or did not. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** How often it is asked again from now on. */
  set intervalMs(intervalMs: number) {
    this._poll.frequency = buildFrequency(intervalMs);
  }

  /** Begin to look, or look no more. */
  set isSeen(isSeen: boolean) {
    if (isSeen === this._isSeen) {
      return;
    }
    this._isSeen = isSeen;
    void (isSeen ? this._poll.start() : this._poll.stop());
  }

  /** Ask now, as after a change; what nobody sees waits. */
  refresh(): void {
    if (this._isSeen) {
      void this._poll.refresh();
    }
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  private async _load(): Promise<void> {
    try {
      this._data = await request<T>('GET', this.path);
      this._error = undefined;
    } catch (error) {
      this._error = error as ApiError;
      throw error;
    } finally {
      this._changed.emit();
    }
  }

  private _poll: Poll;
  private _data: T | undefined;
  private _error: ApiError | undefined;
  private _isSeen = false;
  private _changed = new Signal<this, void>(this);
}

function buildFrequency(interval: number): { interval: number; backoff: boolean; max: number } {
  return { interval, backoff: true, max: 60_000 };
}
