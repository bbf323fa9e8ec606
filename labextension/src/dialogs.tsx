/** Questions to people: each is a dialog that answers with what was typed, or with nothing. */
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';

/** One line of a form. */
export interface IField {
  name: string;
  label: string;
  value?: string;
  help?: string;
  /** `lines` is a text of several lines. */
  kind?: 'text' | 'password' | 'number' | 'checkbox' | 'lines';
  placeholder?: string;
  /** Exactly one of these, as value and label. */
  choices?: readonly (readonly [string, string])[];
  isRequired?: boolean;
}

export type Answers = Record<string, string>;

/** Ask for a few values; returns undefined where the person thinks better of it. */
export async function ask(
  title: string,
  fields: readonly IField[],
  accept: string,
  trans: TranslationBundle
): Promise<Answers | undefined> {
  const answer = await showDialog({
    title,
    body: new Form(fields),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: accept })
    ],
    focusNodeSelector: 'input, select'
  });
  const values = answer.button.accept ? answer.value : null;
  const isComplete = fields.every(field => !field.isRequired || values?.[field.name]);
  return values && isComplete ? values : undefined;
}

/** Ask whether something is meant that cannot be undone. */
export async function confirm(
  title: string,
  body: string,
  accept: string,
  trans: TranslationBundle
): Promise<boolean> {
  const answer = await showDialog({
    title,
    body,
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: accept })
    ],
    defaultButton: 0
  });
  return answer.button.accept;
}

class Form extends ReactWidget implements Dialog.IBodyWidget<Answers> {
  constructor(private _fields: readonly IField[]) {
    super();
    this.addClass('jp-apptainer-form');
    this._values = Object.fromEntries(
      _fields.map(field => [field.name, field.value ?? field.choices?.[0][0] ?? ''])
    );
  }

  /** The dialog asks for this. */
  getValue(): Answers {
    return Object.fromEntries(
      Object.entries(this._values).map(([name, value]) => [name, value.trim()])
    );
  }

  protected override render(): JSX.Element {
    return <>{this._fields.map(field => this._renderField(field))}</>;
  }

  private _renderField(field: IField): JSX.Element {
    const set = (value: string): void => {
      this._values[field.name] = value;
    };
    const id = `jp-apptainer-${field.name}`;
    const shared = { id, 'aria-describedby': field.help ? `${id}-help` : undefined };
    return (
      <div key={field.name} className={field.kind === 'checkbox' ? 'jp-apptainer-check' : undefined}>
        <label htmlFor={id}>{field.label}</label>
        {field.kind === 'checkbox' ? (
          <input
            {...shared}
            type="checkbox"
            defaultChecked={field.value === 'true'}
            onChange={event => set(String(event.target.checked))}
          />
        ) : field.choices ? (
          <select
            {...shared}
            className="jp-mod-styled"
            defaultValue={this._values[field.name]}
            onChange={event => set(event.target.value)}
          >
            {field.choices.map(([value, label]) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))}
          </select>
        ) : field.kind === 'lines' ? (
          <textarea
            {...shared}
            className="jp-mod-styled"
            rows={3}
            defaultValue={field.value}
            onChange={event => set(event.target.value)}
          />
        ) : (
          <input
            {...shared}
            className="jp-mod-styled"
            type={field.kind ?? 'text'}
            placeholder={field.placeholder}
            autoComplete={field.kind === 'password' ? 'off' : undefined}
            required={field.isRequired}
            defaultValue={field.value}
            onChange={event => set(event.target.value)}
          />
        )}
        {field.help && (
          <span id={`${id}-help`} className="jp-apptainer-help">
            {field.help}
          </span>
        )}
      </div>
    );
  }

  private _values: Answers;
}
