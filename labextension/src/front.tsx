import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator, TranslationBundle } from '@jupyterlab/translation';
import { VDomModel, VDomRenderer } from '@jupyterlab/ui-components';

import { Instance, Overlay } from './api';
import { CommandIDs } from './commandIDs';
import { formatBytes, nameOf } from './format';
import { isContainerKernel } from './kernels/described';
import { Resource } from './resource';

const INSTANCE_MS = 3_000;
const OVERLAY_MS = 15_000;

/** In the status bar: image, memory and overlay of the notebook in front. */
export const frontPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:front',
  description: 'Shows image, memory and overlay of the notebook in front in the status bar.',
  autoStart: true,
  optional: [INotebookTracker, IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker | null,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ): void => {
    if (!statusBar || !notebooks) {
      return;
    }
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const model = new FrontModel(app, notebooks);
    const open = (): void => void app.commands.execute(CommandIDs.openPanel, { section: 'notebook' });
    statusBar.registerStatusItem('jupyter-apptainer:front', {
      item: new FrontStatus(model, open, trans),
      align: 'left',
      rank: 20,
      isActive: () => model.instance !== undefined,
      activeStateChanged: model.stateChanged
    });
  }
};

/** Asks about the container of the notebook in front, and nothing while there is none. */
class FrontModel extends VDomModel {
  constructor(
    private _app: JupyterFrontEnd,
    private _notebooks: INotebookTracker
  ) {
    super();
    for (const resource of [this._instances, this._overlays]) {
      resource.changed.connect(() => this._tell());
    }
    _notebooks.currentChanged.connect(this._follow, this);
    _notebooks.widgetAdded.connect((_, panel) => panel.sessionContext.kernelChanged.connect(this._follow, this));
    _app.shell.currentChanged?.connect(this._follow, this);
    _app.serviceManager.kernelspecs.specsChanged.connect(this._follow, this);
  }

  get instance(): Instance | undefined {
    const kernelId = this._kernelId;
    return kernelId === undefined ? undefined : this._instances.data?.find(found => found.kernel_id === kernelId);
  }

  /** How full the fullest of its overlays is, 0 to 1; undefined where none tells. */
  get fill(): number | undefined {
    const paths = this.instance?.overlays ?? [];
    const own = (this._overlays.data ?? []).filter(overlay => paths.includes(overlay.path));
    const fills = own.flatMap(overlay => (overlay.used_fraction === null ? [] : [overlay.used_fraction]));
    return fills.length ? Math.max(...fills) : undefined;
  }

  override dispose(): void {
    this._instances.dispose();
    this._overlays.dispose();
    super.dispose();
  }

  private _follow(): void {
    this._kernelId = this._findKernel(this._notebooks.currentWidget);
    this._instances.isSeen = this._kernelId !== undefined;
    this._instances.refresh();
    this._tell();
  }

  private _tell(): void {
    this._overlays.isSeen = (this.instance?.overlays.length ?? 0) > 0;
    this.stateChanged.emit();
  }

  private _findKernel(panel: NotebookPanel | null): string | undefined {
    const kernel = panel?.sessionContext.session?.kernel;
    const specs = this._app.serviceManager.kernelspecs.specs?.kernelspecs;
    const isFront = panel !== null && panel === this._app.shell.currentWidget;
    return isFront && kernel && isContainerKernel(specs?.[kernel.name]?.metadata) ? kernel.id : undefined;
  }

  private _instances = new Resource<Instance[]>('/instances', INSTANCE_MS);
  private _overlays = new Resource<Overlay[]>('/overlays', OVERLAY_MS);
  private _kernelId: string | undefined;
}

class FrontStatus extends VDomRenderer<FrontModel> {
  constructor(
    model: FrontModel,
    private _open: () => void,
    private _trans: TranslationBundle
  ) {
    super(model);
    this.addClass('jp-apptainer-front');
  }

  protected override render(): JSX.Element | null {
    const { instance, fill } = this.model;
    if (!instance) {
      return null;
    }
    const trans = this._trans;
    const words = [nameOf(instance.image), formatBytes(instance.memory_bytes)];
    if (fill !== undefined) {
      words.push(trans.__('overlay %1%', String(Math.round(fill * 100))));
    }
    return (
      <button
        type="button"
        className="jp-apptainer-status-button"
        title={trans.__('The container of this notebook: show more')}
        onClick={this._open}
      >
        {words.join(' · ')}
      </button>
    );
  }
}
