import { INotebookTracker } from '@jupyterlab/notebook';

import { CommandIDs } from '../commandIDs';
import { Instance } from '../api';
import { formatAge, formatBytes, nameOf } from '../format';
import { Resource } from '../resource';
import { ActionButton, ISectionContext, Section } from '../section';

/** The container of the notebook that is in front. */
export class NotebookSection extends Section<Instance[]> {
  constructor(
    title: string,
    resource: Resource<Instance[]>,
    context: ISectionContext,
    private _notebooks: INotebookTracker
  ) {
    super(title, resource, context);
    _notebooks.currentChanged.connect(this._followCurrent, this);
    this._followCurrent();
  }

  protected override renderData(instances: Instance[]): JSX.Element {
    const { trans, execute } = this.context;
    const kernelId = this._notebooks.currentWidget?.sessionContext.session?.kernel?.id;
    const instance = instances.find(found => kernelId !== undefined && found.kernel_id === kernelId);
    if (!instance) {
      return (
        <p className="jp-apptainer-empty">
          {kernelId === undefined
            ? trans.__('No notebook with a kernel is open.')
            : trans.__('The kernel of this notebook runs in no container.')}
        </p>
      );
    }
    const facts: [string, string][] = [
      [trans.__('Image'), nameOf(instance.image)],
      [trans.__('Running'), formatAge(instance.started_at)],
      [trans.__('Memory'), formatBytes(instance.memory_bytes)],
      [trans.__('Processor time'), trans.__('%1 s', instance.cpu_s.toFixed(1))],
      [trans.__('Processes'), String(instance.processes)],
      [trans.__('Overlays'), instance.overlays.map(nameOf).join(', ') || trans.__('none')]
    ];
    return (
      <>
        <dl className="jp-apptainer-facts">
          {facts.map(([term, fact]) => (
            <div key={term}>
              <dt>{term}</dt>
              <dd>{fact}</dd>
            </div>
          ))}
        </dl>
        <div className="jp-apptainer-actions">
          <ActionButton
            label={trans.__('Environment…')}
            action={() => execute('apptainer:choose-environment')}
          />
          <ActionButton
            label={trans.__('Terminal')}
            action={() => execute(CommandIDs.openTerminal, { instance: instance.name })}
          />
        </div>
      </>
    );
  }

  override dispose(): void {
    this._notebooks.currentChanged.disconnect(this._followCurrent, this);
    super.dispose();
  }

  private _followCurrent(): void {
    this._notebooks.currentWidget?.sessionContext.kernelChanged.disconnect(this._show, this);
    this._notebooks.currentWidget?.sessionContext.kernelChanged.connect(this._show, this);
    this._show();
  }

  private _show(): void {
    this.update();
    this.resource.refresh();
  }
}
