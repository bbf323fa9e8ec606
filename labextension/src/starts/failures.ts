import { Dialog } from '@jupyterlab/apputils';

import { IPhaseEvent } from './model';

/** So long is a dialog about it expected. */
const EXPECTED_MS = 60_000;

/**
 * Puts our dialog, which has what helps, in the place of Jupyter's, which has the reason alone.
 *
 * Every page hears of every failed start; the page whose notebook it was is the one where Jupyter shows its dialog. Where that is
 * never recognised it stays, and ours is a click on the status bar away.
 */
export class FailureWatch {
  constructor(private _repair: (kernelId: string) => void) {
    Dialog.tracker.widgetAdded.connect((_, dialog) => this._watch(dialog));
  }

  /** Take note of an event. */
  note(event: IPhaseEvent): void {
    if (event.status !== 'failed' || !event.message) {
      return;
    }
    // As the server writes it for Jupyter's dialog.
    const text = event.message.replace(/%/g, ' percent');
    this._expected.set(event.kernel_id, text);
    window.setTimeout(() => {
      if (this._expected.get(event.kernel_id) === text) {
        this._expected.delete(event.kernel_id);
      }
    }, EXPECTED_MS);
    Dialog.tracker.forEach(dialog => this._look(dialog));
  }

  private _watch(dialog: Dialog<unknown>): void {
    const observer = new MutationObserver(() => this._look(dialog));
    observer.observe(dialog.node, { childList: true, subtree: true, characterData: true });
    dialog.disposed.connect(() => observer.disconnect());
  }

  private _look(dialog: Dialog<unknown>): void {
    if (dialog.isDisposed || this._expected.size === 0 || dialog.node.querySelector('.jp-apptainer-reason')) {
      return;
    }
    const shown = dialog.node.textContent ?? '';
    for (const [kernelId, text] of this._expected) {
      if (shown.includes(text)) {
        this._expected.delete(kernelId);
        dialog.reject();
        this._repair(kernelId);
        return;
      }
    }
  }

  private _expected = new Map<string, string>();
}
