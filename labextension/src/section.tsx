import { showErrorMessage } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import { ReactNode } from 'react';

import { ApiError } from './api';
import { Resource } from './resource';

/** What sections can do with the rest of the program. */
export interface ISectionContext {
  trans: TranslationBundle;
  /** Ask everything that is seen anew, as after a change. */
  refresh: () => void;
  /** Run one of our commands. */
  execute: (command: string, args?: Record<string, string>) => Promise<unknown>;
}

/** One section of the side panel: it asks the server while it is open and seen. */
export abstract class Section<T> extends ReactWidget {
  constructor(
    title: string,
    readonly resource: Resource<T>,
    protected context: ISectionContext
  ) {
    super();
    this.title.label = title;
    this.addClass('jp-apptainer-section');
  }

  /** The lines, of what has come. */
  protected abstract renderData(data: T): JSX.Element;

  /** Buttons above the lines. */
  protected renderActions(): ReactNode {
    return null;
  }

  protected override render(): JSX.Element {
    return (
      <UseSignal signal={this.resource.changed}>
        {() => (
          <>
            {this.renderActions()}
            {this.resource.error && <Problem error={this.resource.error} />}
            {this.resource.data !== undefined && this.renderData(this.resource.data)}
            {this.resource.data === undefined && !this.resource.error && (
              <p className="jp-apptainer-empty" role="status">
                {this.context.trans.__('Loading…')}
              </p>
            )}
          </>
        )}
      </UseSignal>
    );
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.resource.isSeen = this.isVisible;
  }

  protected override onBeforeDetach(message: Message): void {
    super.onBeforeDetach(message);
    this.resource.isSeen = false;
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.resource.isSeen = true;
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.resource.isSeen = false;
  }

  override dispose(): void {
    this.resource.dispose();
    super.dispose();
  }
}

/** A list, or a word about there being none. */
export function List<T>(props: {
  items: readonly T[];
  empty: string;
  label: string;
  renderItem: (item: T) => JSX.Element;
}): JSX.Element {
  if (!props.items.length) {
    return <p className="jp-apptainer-empty">{props.empty}</p>;
  }
  return (
    <ul className="jp-apptainer-list" aria-label={props.label}>
      {props.items.map(props.renderItem)}
    </ul>
  );
}

/** A button with the look of JupyterLab's; busy while its action is under way, and failures are shown. */
export function ActionButton(props: {
  label: string;
  /** For screen readers, where several buttons have one label. */
  about?: string;
  /** Why it cannot be used now. */
  reason?: string;
  action: () => Promise<unknown>;
}): JSX.Element {
  return (
    <button
      type="button"
      className="jp-mod-styled jp-apptainer-button"
      aria-label={props.about ? `${props.label}: ${props.about}` : undefined}
      disabled={props.reason !== undefined}
      title={props.reason}
      onClick={() => void props.action().catch(showFailure)}
    >
      {props.label}
    </button>
  );
}

/** How full something is. fraction: 0 to 1, null where nobody can tell. */
export function Bar(props: {
  label: string;
  fraction: number | null;
  text: string;
}): JSX.Element {
  const percent = props.fraction === null ? null : Math.round(props.fraction * 100);
  return (
    <div
      className="jp-apptainer-bar"
      role="progressbar"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent ?? undefined}
      aria-valuetext={props.text}
    >
      <div
        className="jp-apptainer-bar-fill"
        data-level={percent !== null && percent >= 85 ? 'high' : 'normal'}
        style={{ width: `${percent ?? 0}%` }}
      />
      <span aria-hidden="true">{props.text}</span>
    </div>
  );
}

/** The server's reason, and what to do. */
export function Problem(props: { error: ApiError }): JSX.Element {
  return (
    <p className="jp-apptainer-problem" role="alert">
      {props.error.message}
      {props.error.hint && <span className="jp-apptainer-hint">{props.error.hint}</span>}
    </p>
  );
}

/** Show what did not work; `error` is what was thrown. */
export async function showFailure(error: unknown): Promise<void> {
  if (error instanceof ApiError) {
    await showErrorMessage(error.message, error.hint || error.code || `HTTP ${error.status}`);
  } else {
    await showErrorMessage('Apptainer', String(error));
  }
}
