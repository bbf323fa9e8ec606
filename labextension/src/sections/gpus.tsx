import { IDevice, IGpus } from '../api';
import { formatBytes, nameOf } from '../format';
import { Bar, List, Section } from '../section';

/** Devices of this account, and which notebook uses their memory. */
export class GpusSection extends Section<IGpus> {
  protected override renderData(gpus: IGpus): JSX.Element {
    const { trans } = this.context;
    if (gpus.status.code !== 'ok') {
      return (
        <p className="jp-apptainer-empty">
          {gpus.status.reason}
          {gpus.status.fix && <span className="jp-apptainer-hint">{gpus.status.fix}</span>}
        </p>
      );
    }
    return (
      <List
        items={gpus.devices}
        label={trans.__('GPUs')}
        empty={trans.__('No GPU.')}
        renderItem={device => this._renderDevice(device, gpus)}
      />
    );
  }

  private _renderDevice(device: IDevice, gpus: IGpus): JSX.Element {
    const { trans } = this.context;
    const label = device.slice_index === null ? `${device.index}` : `${device.index}:${device.slice_index}`;
    const holders = gpus.holders.filter(holder => holder.device === label);
    const others = gpus.others.filter(other => other.device === label);
    const unknown = trans.__('n/a');
    const { utilisation_percent: busy, memory_used_bytes: used, memory_total_bytes: total } = device;
    const facts = [
      device.temperature_c === null ? unknown : `${device.temperature_c} °C`,
      device.power_w === null ? unknown : `${Math.round(device.power_w)} W`
    ];
    return (
      <li key={device.uuid} className="jp-apptainer-item">
        <div className="jp-apptainer-name">
          {label} {device.name}
        </div>
        {device.problem && <div className="jp-apptainer-problem">{device.problem}</div>}
        <Bar
          label={trans.__('Use of GPU %1', label)}
          fraction={busy === null ? null : busy / 100}
          text={busy === null ? unknown : `${busy}%`}
        />
        <Bar
          label={trans.__('Memory of GPU %1', label)}
          fraction={used === null || !total ? null : used / total}
          text={used === null || total === null ? unknown : `${formatBytes(used)} / ${formatBytes(total)}`}
        />
        <div className="jp-apptainer-detail">{facts.join(' · ')}</div>
        {(holders.length > 0 || others.length > 0) && (
          <table className="jp-apptainer-table">
            <caption>{trans.__('Who uses GPU %1', label)}</caption>
            <thead>
              <tr>
                <th scope="col">{trans.__('Notebook or program')}</th>
                <th scope="col">{trans.__('Process')}</th>
                <th scope="col">{trans.__('Memory')}</th>
              </tr>
            </thead>
            <tbody>
              {holders.map(holder => (
                <tr key={holder.pid} title={holder.reason}>
                  <td>
                    {nameOf(holder.label)}
                    {holder.owner === 'orphan' && (
                      <span className="jp-apptainer-badge">{trans.__('nobody’s any more')}</span>
                    )}
                  </td>
                  <td>{holder.pid}</td>
                  <td>{holder.memory_bytes === null ? unknown : formatBytes(holder.memory_bytes)}</td>
                </tr>
              ))}
              {others.map(other => (
                <tr key="others">
                  <td>{trans.__('others')}</td>
                  <td>{other.processes}</td>
                  <td>{other.memory_bytes === null ? unknown : formatBytes(other.memory_bytes)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </li>
    );
  }
}
