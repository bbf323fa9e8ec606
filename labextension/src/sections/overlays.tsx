import { CommandIDs } from '../commandIDs';
import { Overlay, request } from '../api';
import { confirm } from '../dialogs';
import { formatBytes, nameOf } from '../format';
import { ActionButton, Bar, List, Section } from '../section';

/** Layers that are written to, how full they are and who uses them. */
export class OverlaysSection extends Section<Overlay[]> {
  protected override renderActions(): JSX.Element {
    const { trans, execute } = this.context;
    return (
      <div className="jp-apptainer-actions">
        <ActionButton label={trans.__('Create…')} action={() => execute(CommandIDs.createOverlay)} />
      </div>
    );
  }

  protected override renderData(overlays: Overlay[]): JSX.Element {
    const { trans } = this.context;
    return (
      <List
        items={overlays}
        label={trans.__('Overlays')}
        empty={trans.__('No overlay.')}
        renderItem={overlay => this._renderOverlay(overlay)}
      />
    );
  }

  private _renderOverlay(overlay: Overlay): JSX.Element {
    const { trans, refresh } = this.context;
    const name = nameOf(overlay.path);
    return (
      <li key={overlay.path} className="jp-apptainer-item">
        <div className="jp-apptainer-name" title={overlay.path}>
          {name}
        </div>
        {overlay.size_bytes !== null && (
          <Bar
            label={trans.__('Filling of %1', name)}
            fraction={overlay.used_fraction}
            text={
              overlay.used_fraction === null
                ? formatBytes(overlay.size_bytes)
                : trans.__('%1% of %2', Math.round(overlay.used_fraction * 100), formatBytes(overlay.size_bytes))
            }
          />
        )}
        {overlay.holder && (
          <div className="jp-apptainer-detail">{trans.__('in use by %1', overlay.holder)}</div>
        )}
        {overlay.warning && <div className="jp-apptainer-problem">{overlay.warning}</div>}
        <div className="jp-apptainer-actions">
          <ActionButton
            label={trans.__('Delete…')}
            about={name}
            reason={overlay.holder ? trans.__('in use by %1', overlay.holder) : undefined}
            action={async () => {
              const isMeant = await confirm(
                trans.__('Delete the overlay “%1”?', name),
                trans.__('All that is in it is lost: %1', overlay.path),
                trans.__('Delete'),
                trans
              );
              if (isMeant) {
                await request('DELETE', `/overlays?path=${encodeURIComponent(overlay.path)}`);
                refresh();
              }
            }}
          />
        </div>
      </li>
    );
  }
}
