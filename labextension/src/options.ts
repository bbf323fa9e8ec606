/** What a person can set of the side bar, in JupyterLab's settings editor; the schema is schema/panel.json. */
import { ISettingRegistry } from '@jupyterlab/settingregistry';

export interface IPanelOptions {
  isShown: boolean;
  openSections: readonly string[];
  refreshSeconds: number;
  notifications: boolean;
}

/** As in the schema. */
export const DEFAULT_OPTIONS: IPanelOptions = {
  isShown: true,
  openSections: ['notebook', 'images', 'tasks'],
  refreshSeconds: 2,
  notifications: true
};

/** Hand over what is set, now and whenever it changes. */
export async function loadOptions(
  registry: ISettingRegistry | null,
  pluginId: string,
  use: (options: IPanelOptions) => void
): Promise<void> {
  try {
    const settings = await registry?.load(pluginId);
    const read = (): void => use({ ...DEFAULT_OPTIONS, ...(settings?.composite as Partial<IPanelOptions> | undefined) });
    settings?.changed.connect(read);
    read();
  } catch {
    // A server that does not have our schema: the defaults serve.
    use(DEFAULT_OPTIONS);
  }
}
