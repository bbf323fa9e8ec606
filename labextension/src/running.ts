import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IRunningSessionManagers, IRunningSessions } from '@jupyterlab/running';
import { ITranslator, nullTranslator, TranslationBundle } from '@jupyterlab/translation';
import { ISignal, Signal } from '@lumino/signaling';

import { Instance, request } from './api';
import { formatAge, nameOf } from './format';
import { apptainerIcon } from './icons';
import { listKernels } from './kernels/described';
import { showFailure } from './section';

/** In JupyterLab's list of what runs: containers, also those whose server is gone. */
export const runningPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:running',
  description: 'Lists containers among what runs, where they can be shut down.',
  autoStart: true,
  optional: [IRunningSessionManagers, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    managers: IRunningSessionManagers | null,
    translator: ITranslator | null
  ): void => {
    if (!managers) {
      return;
    }
    const { kernelspecs, sessions } = app.serviceManager;
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const containers = new Containers(app, trans);
    let isShown = false;
    // Asked when something has changed, and not by the clock; never where there are no container kernels.
    const look = async (): Promise<void> => {
      if (listKernels(app, trans).length && (await containers.load()) && !isShown) {
        isShown = true;
        managers.add(containers);
      }
    };
    void app.restored.then(() => {
      void look();
      kernelspecs.specsChanged.connect(() => !isShown && void look());
      sessions.runningChanged.connect(() => void look());
    });
  }
};

class Containers implements IRunningSessions.IManager {
  constructor(
    private _app: JupyterFrontEnd,
    trans: TranslationBundle
  ) {
    this.name = trans.__('Apptainer containers');
    this.shutdownLabel = trans.__('Shut down');
    this.shutdownAllLabel = trans.__('Shut down all');
    this.shutdownAllConfirmationText = trans.__(
      'Shut down all containers? Their kernels end, and what is in their memory is lost.'
    );
  }

  readonly name: string;
  readonly shutdownLabel: string;
  readonly shutdownAllLabel: string;
  readonly shutdownAllConfirmationText: string;

  get runningChanged(): ISignal<this, void> {
    return this._changed;
  }

  running(): IRunningSessions.IRunningItem[] {
    return this._instances.map(instance => ({
      icon: () => apptainerIcon,
      label: () => nameOf(instance.label) || instance.name,
      labelTitle: () => `${instance.label}\n${instance.image}\n${instance.name}`,
      detail: () => `${nameOf(instance.image)} · ${formatAge(instance.started_at)}`,
      open: () => this._open(instance),
      shutdown: () => void this._shutDown([instance])
    }));
  }

  shutdownAll(): void {
    void this._shutDown(this._instances);
  }

  refreshRunning(): void {
    void this.load();
  }

  /** Ask the server; returns whether it has answered. */
  async load(): Promise<boolean> {
    try {
      this._instances = await request<Instance[]>('GET', '/instances');
    } catch {
      // Another server, or none.
      return false;
    }
    this._changed.emit();
    return true;
  }

  /** Show the notebook, where this server has one. */
  private _open(instance: Instance): void {
    for (const session of this._app.serviceManager.sessions.running()) {
      if (session.kernel?.id === instance.kernel_id) {
        void this._app.commands.execute('docmanager:open', { path: session.path });
      }
    }
  }

  private async _shutDown(instances: readonly Instance[]): Promise<void> {
    const names = [...new Set(instances.map(instance => instance.name))];
    try {
      await Promise.all(names.map(name => request('DELETE', `/instances/${encodeURIComponent(name)}`)));
    } catch (error) {
      await showFailure(error);
    }
    await this._app.serviceManager.sessions.refreshRunning();
    await this.load();
  }

  private _changed = new Signal<this, void>(this);
  private _instances: Instance[] = [];
}
