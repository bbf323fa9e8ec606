import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { Dialog, ICommandPalette, showDialog } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import {
  ITranslator,
  nullTranslator,
  TranslationBundle
} from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';

import { IFormValues, mergeValues, METADATA_KEY, readValues } from './settings';

const COMMAND = 'apptainer:choose-environment';
const PROVISIONER = 'apptainer-provisioner';

/** The notebook's button "Environment": image, GPU, binds and overlays of its container, kept in the notebook. */
export const environmentPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:environment',
  description: "Changes the container of a notebook, and restarts its kernel.",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    palette: ICommandPalette | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const { commands, serviceManager, shell } = app;
    const getPanel = (): NotebookPanel | null =>
      notebooks.currentWidget !== null &&
      notebooks.currentWidget === shell.currentWidget
        ? notebooks.currentWidget
        : null;
    // The commands ask before kernelspecs are loaded, and once more when they are.
    const isInContainer = (panel: NotebookPanel | null): boolean => {
      const name = panel?.sessionContext.session?.kernel?.name ?? panel?.sessionContext.kernelPreference.name;
      return name ? isContainerKernel(serviceManager.kernelspecs.specs?.kernelspecs[name]?.metadata) : false;
    };
    commands.addCommand(COMMAND, {
      label: trans.__('Environment'),
      caption: trans.__('Change the image, GPU, folders and overlays of this notebook'),
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => isInContainer(getPanel()),
      isVisible: () => isInContainer(getPanel()),
      execute: async () => {
        const panel = getPanel();
        if (panel) {
          await changeEnvironment(panel, trans);
        }
      }
    });
    const changed = (): void => commands.notifyCommandChanged(COMMAND);
    serviceManager.kernelspecs.specsChanged.connect(changed);
    notebooks.currentChanged.connect(changed);
    notebooks.widgetAdded.connect((_, panel) => panel.sessionContext.kernelChanged.connect(changed));
    palette?.addItem({ command: COMMAND, category: trans.__('Apptainer') });
  }
};

function isContainerKernel(metadata: unknown): boolean {
  const provisioner = (
    metadata as { kernel_provisioner?: { provisioner_name?: string } } | undefined
  )?.kernel_provisioner;
  return provisioner?.provisioner_name === PROVISIONER;
}

async function changeEnvironment(
  panel: NotebookPanel,
  trans: TranslationBundle
): Promise<void> {
  const model = panel.content.model;
  if (!model) {
    return;
  }
  const before = model.getMetadata(METADATA_KEY);
  const form = new EnvironmentForm(readValues(before), trans);
  const answer = await showDialog({
    title: trans.__('Environment of this notebook'),
    body: form,
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: trans.__('Save and start anew') })
    ],
    focusNodeSelector: 'input'
  });
  if (!answer.button.accept || !answer.value) {
    return;
  }
  const after = mergeValues(before, answer.value);
  if (after === undefined) {
    model.deleteMetadata(METADATA_KEY);
  } else {
    model.setMetadata(METADATA_KEY, after);
  }
  // The server reads the settings from the saved file when a kernel starts; a restart in place keeps its container.
  await panel.context.save();
  const name = panel.sessionContext.session?.kernel?.name;
  if (name) {
    await panel.sessionContext.shutdown();
    await panel.sessionContext.changeKernel({ name });
  }
}

class EnvironmentForm
  extends ReactWidget
  implements Dialog.IBodyWidget<IFormValues>
{
  constructor(
    private _values: IFormValues,
    private _trans: TranslationBundle
  ) {
    super();
    this.addClass('jp-apptainer-form');
  }

  /** The dialog asks for this. */
  getValue(): IFormValues {
    return this._values;
  }

  protected override render(): JSX.Element {
    const trans = this._trans;
    return (
      <>
        <label>
          {trans.__('Image')}
          <input
            className="jp-mod-styled"
            defaultValue={this._values.image}
            placeholder={trans.__('as in the kernel')}
            onChange={event => this._set('image', event.target.value)}
          />
          <span className="jp-apptainer-help">
            {trans.__('NAME.sif, NAME.sif@sha256:DIGEST, or a path')}
          </span>
        </label>
        <label>
          {trans.__('NVIDIA GPU')}
          <select
            className="jp-mod-styled"
            defaultValue={this._values.nv}
            onChange={event => this._set('nv', event.target.value as IFormValues['nv'])}
          >
            <option value="">{trans.__('as in the kernel')}</option>
            <option value="auto">{trans.__('where this machine has one')}</option>
            <option value="true">{trans.__('yes')}</option>
            <option value="false">{trans.__('no')}</option>
          </select>
        </label>
        <label>
          {trans.__('Folders to bind')}
          <textarea
            className="jp-mod-styled"
            rows={3}
            defaultValue={this._values.binds}
            onChange={event => this._set('binds', event.target.value)}
          />
          <span className="jp-apptainer-help">
            {trans.__('One per line: NAME, or SOURCE[:DESTINATION[:ro]]')}
          </span>
        </label>
        <label>
          {trans.__('Overlays')}
          <textarea
            className="jp-mod-styled"
            rows={2}
            defaultValue={this._values.overlays}
            onChange={event => this._set('overlays', event.target.value)}
          />
          <span className="jp-apptainer-help">
            {trans.__('One per line: FILE, FILE:ro, auto, or tmpfs')}
          </span>
        </label>
      </>
    );
  }

  private _set<K extends keyof IFormValues>(key: K, value: IFormValues[K]): void {
    this._values = { ...this._values, [key]: value };
  }
}
