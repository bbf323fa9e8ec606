import { CommandIDs } from '../commandIDs';
import { Instance, request } from '../api';
import { confirm } from '../dialogs';
import { formatAge, formatBytes, nameOf } from '../format';
import { ActionButton, List, Section } from '../section';

/** Containers that run, each with the kernel in it. */
export class InstancesSection extends Section<Instance[]> {
  protected override renderData(instances: Instance[]): JSX.Element {
    const { trans } = this.context;
    return (
      <List
        items={instances}
        label={trans.__('Instances')}
        empty={trans.__('No container runs.')}
        renderItem={instance => this._renderInstance(instance)}
      />
    );
  }

  private _renderInstance(instance: Instance): JSX.Element {
    const { trans, execute, refresh } = this.context;
    const label = nameOf(instance.label);
    return (
      <li key={instance.name} className="jp-apptainer-item">
        <div className="jp-apptainer-name" title={instance.label}>
          {label}
          {instance.state !== 'running' && (
            <span className="jp-apptainer-badge">{this._describe(instance.state)}</span>
          )}
        </div>
        <div className="jp-apptainer-detail" title={instance.image}>
          {nameOf(instance.image)} · {formatBytes(instance.memory_bytes)} · {formatAge(instance.started_at)}
        </div>
        <div className="jp-apptainer-actions">
          {instance.state === 'running' && (
            <ActionButton
              label={trans.__('Terminal')}
              about={label}
              action={() => execute(CommandIDs.openTerminal, { instance: instance.name })}
            />
          )}
          <ActionButton
            label={trans.__('Stop…')}
            about={label}
            action={async () => {
              const isMeant = await confirm(
                trans.__('Stop “%1”?', label),
                trans.__('Its kernel ends, and what is in its memory is lost.'),
                trans.__('Stop'),
                trans
              );
              if (isMeant) {
                await request('DELETE', `/instances/${encodeURIComponent(instance.name)}`);
                refresh();
              }
            }}
          />
        </div>
      </li>
    );
  }

  private _describe(state: Instance['state']): string {
    const { trans } = this.context;
    switch (state) {
      case 'starting':
        return trans.__('starting');
      case 'dead':
        return trans.__('dead');
      case 'orphaned':
        return trans.__('its server is gone');
      default:
        return '';
    }
  }
}
