import { Image } from '../api';
import { formatAge, formatBytes, nameOf } from '../format';
import { ActionButton, List, Section } from '../section';
import { CommandIDs } from '../commandIDs';

/** Images in the configured folders, and those of kernels. */
export class ImagesSection extends Section<Image[]> {
  protected override renderActions(): JSX.Element {
    const { trans, execute } = this.context;
    return (
      <div className="jp-apptainer-actions">
        <ActionButton label={trans.__('Pull…')} action={() => execute(CommandIDs.pull)} />
        <ActionButton label={trans.__('Build…')} action={() => execute(CommandIDs.build)} />
      </div>
    );
  }

  protected override renderData(images: Image[]): JSX.Element {
    const { trans } = this.context;
    return (
      <List
        items={images}
        label={trans.__('Images')}
        empty={trans.__('No image yet. Pull one, or build one.')}
        renderItem={image => this._renderImage(image)}
      />
    );
  }

  private _renderImage(image: Image): JSX.Element {
    const { trans, execute } = this.context;
    const name = nameOf(image.path);
    return (
      <li key={image.path} className="jp-apptainer-item">
        <div className="jp-apptainer-name" title={image.path}>
          {name}
        </div>
        <div className="jp-apptainer-detail">
          {formatBytes(image.size_bytes)} · {formatAge(image.modified_at)}
          {image.python && ` · Python ${image.python}`}
          {image.ipykernel && ` · ipykernel ${image.ipykernel}`}
        </div>
        {image.problem && <div className="jp-apptainer-problem">{image.problem}</div>}
        <div className="jp-apptainer-actions">
          <ActionButton
            label={trans.__('Make kernel…')}
            about={name}
            action={() => execute(CommandIDs.makeKernel, { image: image.path })}
          />
          <ActionButton
            label={trans.__('Inspect')}
            about={name}
            action={() => execute(CommandIDs.inspect, { path: image.path })}
          />
        </div>
      </li>
    );
  }
}
