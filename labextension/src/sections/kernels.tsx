import { Kernels, request } from '../api';
import { nameOf } from '../format';
import { findProblem } from '../kernels/described';
import { ActionButton, List, Section } from '../section';
import { confirm } from '../dialogs';
import { CommandIDs } from '../commandIDs';

type Kernelspec = Kernels['kernelspecs'][number];

/** Container kernels that notebooks can be started with. */
export class KernelsSection extends Section<Kernels> {
  protected override renderData(kernels: Kernels): JSX.Element {
    const { trans } = this.context;
    return (
      <List
        items={kernels.kernelspecs}
        label={trans.__('Kernels')}
        empty={trans.__('No kernel yet. Make one from an image.')}
        renderItem={kernel => this._renderKernel(kernel)}
      />
    );
  }

  private _renderKernel(kernel: Kernelspec): JSX.Element {
    const { trans, execute, refresh } = this.context;
    const config = kernel.config as { image?: string; nv?: unknown };
    const problem = findProblem(kernel, trans);
    return (
      <li key={kernel.name} className="jp-apptainer-item">
        <div className="jp-apptainer-name" title={kernel.folder}>
          {kernel.display_name}
        </div>
        <div className="jp-apptainer-detail">
          {nameOf(config.image ?? '')}
          {config.nv === true && ` · ${trans.__('GPU')}`}
        </div>
        {problem && <div className="jp-apptainer-problem">{problem}</div>}
        <div className="jp-apptainer-actions">
          <ActionButton
            label={trans.__('New notebook')}
            about={kernel.display_name}
            reason={problem || undefined}
            action={() => execute(CommandIDs.newNotebook, { kernel: kernel.name })}
          />
          <ActionButton
            label={trans.__('Remove…')}
            about={kernel.display_name}
            action={async () => {
              const isMeant = await confirm(
                trans.__('Remove the kernel “%1”?', kernel.display_name),
                trans.__('Its image and overlays stay.'),
                trans.__('Remove'),
                trans
              );
              if (isMeant) {
                await request('DELETE', `/kernelspecs/${encodeURIComponent(kernel.name)}`);
                refresh();
              }
            }}
          />
        </div>
      </li>
    );
  }
}
