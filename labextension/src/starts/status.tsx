import { TranslationBundle } from '@jupyterlab/translation';
import { VDomRenderer } from '@jupyterlab/ui-components';

import { IPhaseEvent, IStart, StartsModel } from './model';

/** What a person can do about a start. */
export interface IStartActions {
  cancel: (kernelId: string) => void;
  repair: (kernelId: string) => void;
}

/** In the status bar: the phase of a start, with seconds and a way out. */
export class StartStatus extends VDomRenderer<StartsModel> {
  constructor(
    model: StartsModel,
    private _actions: IStartActions,
    private _trans: TranslationBundle
  ) {
    super(model);
    this.addClass('jp-apptainer-status');
    this.node.setAttribute('role', 'status');
  }

  protected override render(): JSX.Element | null {
    const start = this.model.current;
    if (!start) {
      return null;
    }
    return start.isFailed ? this._renderFailed(start) : this._renderRunning(start);
  }

  private _renderFailed(start: IStart): JSX.Element {
    const trans = this._trans;
    return (
      <button
        type="button"
        className="jp-apptainer-status-button"
        title={start.tip}
        onClick={() => this._actions.repair(start.kernelId)}
      >
        {trans.__('%1: start failed (%2)', start.name, describePhase(start.phase, trans))}
      </button>
    );
  }

  private _renderRunning(start: IStart): JSX.Element {
    const trans = this._trans;
    const seconds = ((performance.now() - start.beganAt) / 1000).toFixed(1);
    return (
      <>
        <span>
          {start.name}: {describePhase(start.phase, trans)}{' '}
          {/* Screen readers hear the phase, not every tenth of a second. */}
          <span aria-hidden="true">{trans.__('%1 s', seconds)}</span>
        </span>
        <button
          type="button"
          className="jp-apptainer-status-button"
          aria-label={trans.__('Cancel the start of %1', start.name)}
          onClick={() => this._actions.cancel(start.kernelId)}
        >
          {trans.__('Cancel')}
        </button>
      </>
    );
  }
}

/** A phase for people. */
export function describePhase(phase: IPhaseEvent['phase'], trans: TranslationBundle): string {
  switch (phase) {
    case 'image':
      return trans.__('looking at the image');
    case 'overlay':
      return trans.__('preparing the overlay');
    case 'queue':
      return trans.__('waiting for other starts');
    case 'instance':
      return trans.__('starting the container');
    case 'connect':
      return trans.__('connecting to the kernel');
  }
}
