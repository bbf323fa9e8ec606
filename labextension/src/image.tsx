import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import { ReactNode } from 'react';

import { ApiError, ImageContent, InspectedImage, request } from './api';
import { CommandIDs } from './commandIDs';
import { formatBytes, nameOf } from './format';
import { ActionButton, Problem } from './section';

type Execute = (command: string, args: Record<string, string>) => Promise<unknown>;

/** All that one image says about itself; what is installed in it is read when somebody asks. */
export class ImageView extends ReactWidget {
  /**
   * path: absolute, or from the server's folder.
   */
  constructor(
    readonly path: string,
    private _trans: TranslationBundle,
    private _execute: Execute
  ) {
    super();
    this.addClass('jp-apptainer-image');
    this.title.label = nameOf(path);
    this.title.caption = path;
  }

  /** Ask the server again, as after a change of the file. */
  async load(): Promise<void> {
    const query = `?path=${encodeURIComponent(this.path)}`;
    try {
      this._image = await request<InspectedImage>('GET', `/image${query}`);
      this._content = undefined;
      this._error = undefined;
    } catch (error) {
      this._error = error as ApiError;
    }
    this.update();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    void this.load();
  }

  protected override render(): JSX.Element {
    const trans = this._trans;
    if (this._error?.isAbsent) {
      return <p className="jp-apptainer-empty">{trans.__('This server cannot look into images.')}</p>;
    }
    if (this._error) {
      return <Problem error={this._error} />;
    }
    const image = this._image;
    if (!image) {
      return (
        <p className="jp-apptainer-empty" role="status">
          {trans.__('Loading…')}
        </p>
      );
    }
    return (
      <article aria-label={this.title.label}>
        <h2>{nameOf(image.path)}</h2>
        {this._renderActions(image)}
        <Facts facts={this._listFacts(image)} />
        <Text title={trans.__('Recipe')} text={image.definition} isOpen />
        {Object.keys(image.labels).length > 0 && (
          <details open>
            <summary>{trans.__('Labels')}</summary>
            <Facts facts={Object.entries(image.labels)} />
          </details>
        )}
        <Text title={trans.__('Environment of the image')} text={image.environment} isOpen />
        <Text title={trans.__('Runscript')} text={image.runscript} />
        <Text title={trans.__('Startscript')} text={image.startscript} />
        <Text title={trans.__('Help')} text={image.help} isOpen />
        {this._renderContent()}
      </article>
    );
  }

  private _renderActions(image: InspectedImage): JSX.Element {
    const trans = this._trans;
    const args = { path: this.path };
    return (
      <div className="jp-apptainer-actions">
        <ActionButton
          label={trans.__('New notebook in it')}
          action={() => this._execute(CommandIDs.newNotebookIn, args)}
        />
        <ActionButton
          label={trans.__('Make kernel…')}
          action={() => this._execute(CommandIDs.makeKernel, { image: image.path })}
        />
        <ActionButton
          label={trans.__('Terminal inside')}
          action={() => this._execute(CommandIDs.openTerminal, args)}
        />
      </div>
    );
  }

  private _listFacts(image: InspectedImage): [string, string][] {
    const trans = this._trans;
    const blocks = image.block_bytes ? ` (${formatBytes(image.block_bytes)})` : '';
    const facts: [string, string | null][] = [
      [trans.__('File'), image.path],
      [trans.__('Kind of image'), image.kind],
      [trans.__('Size'), image.size_bytes ? formatBytes(image.size_bytes) : null],
      [trans.__('Created'), image.created_at ? new Date(image.created_at * 1000).toLocaleString() : null],
      [trans.__('Architecture'), image.architecture],
      [trans.__('From'), image.origin],
      [trans.__('Digest'), image.digest],
      [trans.__('Compression'), image.compression && image.compression + blocks],
      [trans.__('Signed with the keys'), this._describeSignatures(image)],
      [trans.__('Embedded overlays'), image.overlay_bytes.map(formatBytes).join(', ')],
      [trans.__('Apps'), image.apps.join(', ')],
      ['Python', image.python],
      ['ipykernel', image.ipykernel],
      [trans.__('Kernels'), image.kernels.join(', ')],
      [trans.__('In use by'), image.running.join(', ')]
    ];
    return facts.flatMap(([term, fact]) => (fact ? [[term, fact] as [string, string]] : []));
  }

  private _describeSignatures(image: InspectedImage): string {
    const keys = image.signatures.map(each => each.fingerprint);
    return keys.length ? [...new Set(keys)].join(', ') : this._trans.__('none: it is not signed');
  }

  private _renderContent(): JSX.Element {
    const trans = this._trans;
    const content = this._content;
    return (
      <details open>
        <summary>{trans.__('Packages')}</summary>
        {content ? (
          this._renderPackages(content)
        ) : (
          <div className="jp-apptainer-actions">
            <ActionButton
              label={this._isReading ? trans.__('Reading all files…') : trans.__('Read all files')}
              reason={this._isReading ? trans.__('Reading all files…') : undefined}
              action={() => this._readContent()}
            />
          </div>
        )}
      </details>
    );
  }

  private _renderPackages(content: ImageContent): JSX.Element {
    const trans = this._trans;
    const wanted = this._filter.toLowerCase();
    const packages = content.packages.filter(each => each.name.toLowerCase().includes(wanted));
    return (
      <>
        {content.sha256 && <Facts facts={[['SHA-256', content.sha256]]} />}
        <input
          type="search"
          className="jp-mod-styled"
          placeholder={trans.__('Show packages with…')}
          aria-label={trans.__('Show packages with…')}
          onChange={event => {
            this._filter = event.target.value;
            this.update();
          }}
        />
        <table className="jp-apptainer-table">
          <caption role="status">{trans.__('%1 of %2 packages', packages.length, content.packages.length)}</caption>
          <thead>
            <tr>
              <th scope="col">{trans.__('Package')}</th>
              <th scope="col">{trans.__('Version')}</th>
              <th scope="col">{trans.__('Installed by')}</th>
            </tr>
          </thead>
          <tbody>
            {packages.map(each => (
              <tr key={`${each.manager} ${each.place} ${each.name}`} title={each.place}>
                <td>{each.name}</td>
                <td>{each.version}</td>
                <td>{each.manager}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </>
    );
  }

  private async _readContent(): Promise<void> {
    this._isReading = true;
    this.update();
    try {
      this._content = await request<ImageContent>('GET', `/image/content?path=${encodeURIComponent(this.path)}`);
    } finally {
      this._isReading = false;
      this.update();
    }
  }

  private _image: InspectedImage | undefined;
  private _content: ImageContent | undefined;
  private _error: ApiError | undefined;
  private _isReading = false;
  private _filter = '';
}

function Facts(props: { facts: readonly (readonly [string, string])[] }): JSX.Element {
  return (
    <dl className="jp-apptainer-facts">
      {props.facts.map(([term, fact]) => (
        <div key={term}>
          <dt>{term}</dt>
          <dd>{fact}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A text as the image has it; nothing where it has none. */
function Text(props: { title: string; text: string | null; isOpen?: boolean }): ReactNode {
  return props.text ? (
    <details open={props.isOpen}>
      <summary>{props.title}</summary>
      <pre tabIndex={0} aria-label={props.title}>
        {props.text}
      </pre>
    </details>
  ) : null;
}
