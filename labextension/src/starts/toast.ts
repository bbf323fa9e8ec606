import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';

import { StartsModel } from './model';
import { describePhase, IStartActions } from './status';

/** Most starts are over by then. */
const PATIENCE_MS = 2_000;

/**
 * Where there is no status bar, as in Jupyter Notebook: a start that takes long is told of in a notification, with a way out.
 *
 * isOurs: whether a notebook of this page waits for a kernel; every page hears of every start.
 */
export class StartToast {
  constructor(
    private _model: StartsModel,
    private _isOurs: () => boolean,
    private _actions: IStartActions,
    private _trans: TranslationBundle
  ) {
    _model.stateChanged.connect(this._follow, this);
  }

  private _follow(): void {
    const start = this._model.running;
    if (!start || performance.now() - start.beganAt < PATIENCE_MS || !this._isOurs()) {
      if (!start && this._id) {
        Notification.dismiss(this._id);
        this._id = this._text = '';
      }
      return;
    }
    const text = `${start.name}: ${describePhase(start.phase, this._trans)}`;
    if (text === this._text) {
      return;
    }
    this._text = text;
    const cancel = { label: this._trans.__('Cancel'), callback: () => this._actions.cancel(start.kernelId) };
    if (this._id) {
      Notification.update({ id: this._id, message: text, actions: [cancel] });
    } else {
      this._id = Notification.emit(text, 'in-progress', { autoClose: false, actions: [cancel] });
    }
  }

  private _id = '';
  private _text = '';
}
