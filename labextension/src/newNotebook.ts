import { JupyterFrontEnd } from '@jupyterlab/application';

/**
 * Open a new notebook with a kernel; folder: from the server's own.
 *
 * The file names its kernel from the beginning: Jupyter Notebook, told by its own command in the address of a new page, now and then asks for one instead.
 */
export async function openNewNotebook(app: JupyterFrontEnd, kernel: string, folder = ''): Promise<void> {
  const { contents, kernelspecs } = app.serviceManager;
  const spec = kernelspecs.specs?.kernelspecs[kernel];
  const { path } = await contents.newUntitled({ path: folder, type: 'notebook' });
  const kernelspec = { name: kernel, display_name: spec?.display_name ?? kernel, language: spec?.language ?? '' };
  const content = { cells: [], metadata: { kernelspec }, nbformat: 4, nbformat_minor: 5 };
  await contents.save(path, { type: 'notebook', format: 'json', content });
  await app.commands.execute('docmanager:open', { path });
}
