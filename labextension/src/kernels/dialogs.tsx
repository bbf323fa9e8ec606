import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import {
  Dialog,
  ISessionContext,
  ISessionContextDialogs,
  SessionContextDialogs,
  showDialog
} from '@jupyterlab/apputils';
import { Kernel } from '@jupyterlab/services';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';

import { IDescribed, listKernels, loadHealth } from './described';

/** JupyterLab's dialogs about kernels; the one that chooses says of container kernels which image they have, and whether they can start. */
export class KernelDialogs extends SessionContextDialogs {
  constructor(
    options: ISessionContext.IDialogsOptions,
    private _app: JupyterFrontEnd
  ) {
    super(options);
    this._translation = options.translator ?? nullTranslator;
  }

  /** Asked before a kernel is chosen; true where there was something better to talk about. */
  recover: ((context: ISessionContext) => Promise<boolean>) | undefined;

  override async selectKernel(context: ISessionContext): Promise<void> {
    try {
      if (this._hasContainers && (await this.recover?.(context))) {
        return;
      }
    } catch {
      // The server does not answer: then there is nothing to know.
    }
    await this.choose(context);
  }

  /** Choose a kernel. */
  async choose(context: ISessionContext): Promise<void> {
    const trans = this._translation.load('jupyter_apptainer');
    if (!this._hasContainers) {
      return super.selectKernel(context);
    }
    const known = listKernels(this._app, trans, await loadHealth(trans));
    const always = context.kernelPreference.autoStartDefault;
    const lab = this._translation.load('jupyterlab');
    const answer = await showDialog({
      title: lab.__('Select Kernel'),
      body: new KernelChoice(context, known, this._translation),
      buttons: [
        Dialog.cancelButton({ label: context.hasNoKernel ? context.kernelDisplayName : lab.__('Cancel') }),
        Dialog.okButton({ label: lab.__('Select'), ariaLabel: lab.__('Select Kernel') })
      ],
      checkbox: typeof always === 'boolean' ? this._buildCheckbox(always) : null
    });
    if (context.isDisposed || !answer.button.accept) {
      return;
    }
    if (typeof always === 'boolean' && answer.isChecked !== null) {
      context.kernelPreference = { ...context.kernelPreference, autoStartDefault: answer.isChecked };
    }
    if (answer.value) {
      await context.changeKernel(answer.value);
    } else if (!context.hasNoKernel) {
      await context.shutdown();
    }
  }

  private _buildCheckbox(checked: boolean): Dialog.ICheckbox {
    const lab = this._translation.load('jupyterlab');
    return {
      label: lab.__('Always start the preferred kernel'),
      caption: lab.__('Remember my choice and always start the preferred kernel'),
      className: '',
      checked
    };
  }

  private get _hasContainers(): boolean {
    return listKernels(this._app, this._translation.load('jupyter_apptainer')).length > 0;
  }

  private _translation: ITranslator;
}

/** The list of JupyterLab, with a line about the chosen one below. */
class KernelChoice extends ReactWidget implements Dialog.IBodyWidget<Partial<Kernel.IModel> | null> {
  constructor(
    private _context: ISessionContext,
    known: readonly IDescribed[],
    private _translation: ITranslator
  ) {
    super();
    this._known = new Map(known.map(kernel => [kernel.name, kernel]));
    this._options = SessionContextDialogs.kernelOptions(_context, _translation);
    const options = this._options.groups.flatMap(group => group.options);
    this._value = (options.find(option => option.selected) ?? options[0])?.value ?? 'null';
  }

  /** The dialog asks for this. */
  getValue(): Partial<Kernel.IModel> | null {
    return JSON.parse(this._value) as Partial<Kernel.IModel> | null;
  }

  protected override render(): JSX.Element {
    const label = this._translation.load('jupyterlab').__('Select kernel for:');
    const chosen = this._find(this._value);
    return (
      <div className="jp-apptainer-choice">
        <label>
          {label} "{this._context.name}"
          <select
            className="jp-mod-styled"
            defaultValue={this._value}
            disabled={this._options.disabled}
            onChange={event => {
              this._value = event.target.value;
              this.update();
            }}
          >
            {this._options.groups.map(group => (
              <optgroup key={group.label} label={group.label}>
                {group.options.map(option => (
                  <option key={option.value} value={option.value} title={option.title}>
                    {this._describe(option)}
                  </option>
                ))}
              </optgroup>
            ))}
          </select>
        </label>
        <p role="status" className={chosen?.problem ? 'jp-apptainer-problem' : 'jp-apptainer-detail'}>
          {chosen?.problem ?? chosen?.detail}
        </p>
      </div>
    );
  }

  private _describe(option: { text: string; value: string }): string {
    const kernel = this._find(option.value);
    return kernel?.label ?? option.text;
  }

  /** Of those that would be started; one that runs has an id. */
  private _find(value: string): IDescribed | undefined {
    const model = JSON.parse(value) as Partial<Kernel.IModel> | null;
    return model?.name === undefined ? undefined : this._known.get(model.name);
  }

  private _known: Map<string, IDescribed>;
  private _options: SessionContextDialogs.IKernelOptions;
  private _value: string;
}

/** Takes the place of JupyterLab's own plugin, which package.json switches off. */
export const kernelDialogsPlugin: JupyterFrontEndPlugin<ISessionContextDialogs> = {
  id: 'jupyter-apptainer:kernel-dialogs',
  description: 'Says in the dialog that chooses a kernel which image it has, and whether it can start.',
  autoStart: true,
  provides: ISessionContextDialogs,
  optional: [ITranslator, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    translator: ITranslator | null,
    settingRegistry: ISettingRegistry | null
  ): ISessionContextDialogs =>
    new KernelDialogs({ translator: translator ?? nullTranslator, settingRegistry }, app)
};
