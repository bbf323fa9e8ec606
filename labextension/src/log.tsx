import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { Poll } from '@lumino/polling';

import { LogPart, request } from './api';

const EVERY_MS = 1000;
/** More than this is kept on the server only; the first part goes. */
const KEPT_CHARACTERS = 2_000_000;

/** The log of a task as it grows, with a filter for its lines. */
export class LogView extends ReactWidget {
  constructor(
    private _taskId: string,
    title: string,
    private _trans: TranslationBundle
  ) {
    super();
    this.id = `jupyter-apptainer-log-${_taskId}`;
    this.title.label = title;
    this.title.closable = true;
    this.addClass('jp-apptainer-log');
    this._poll = new Poll({
      factory: () => this._read(),
      frequency: { interval: EVERY_MS, backoff: true, max: 30_000 },
      name: `jupyter-apptainer:log:${_taskId}`,
      standby: 'when-hidden'
    });
  }

  protected override render(): JSX.Element {
    const trans = this._trans;
    const wanted = this._filter.toLowerCase();
    const lines = wanted
      ? this._text.split('\n').filter(line => line.toLowerCase().includes(wanted)).join('\n')
      : this._text;
    return (
      <>
        <input
          type="search"
          className="jp-mod-styled"
          placeholder={trans.__('Show lines with…')}
          aria-label={trans.__('Show lines with…')}
          onChange={event => {
            this._filter = event.target.value;
            this.update();
          }}
        />
        <pre tabIndex={0} role="log" aria-label={this.title.label}>
          {lines}
        </pre>
      </>
    );
  }

  override dispose(): void {
    this._poll.dispose();
    super.dispose();
  }

  private async _read(): Promise<void> {
    let part: LogPart;
    do {
      part = await request<LogPart>('GET', `/tasks/${this._taskId}/log?offset=${this._offset}`);
      this._offset = part.next_offset;
      this._text = (this._text + part.text).slice(-KEPT_CHARACTERS);
    } while (part.text);
    this.update();
    if (part.is_over) {
      void this._poll.stop();
    }
  }

  private _filter = '';
  private _offset = 0;
  private _text = '';
  private _poll: Poll;
}
