import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { Cell } from '@jupyterlab/cells';
import { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import {
  INotebookTracker,
  NotebookPanel,
  StaticNotebook
} from '@jupyterlab/notebook';

import { DEFINITION_MIME } from './definition';

/** A cell whose body is a definition file; with one of these options the body is something else. */
const BUILD_CELL = /^\s*%%apptainer\s+(?:--\S+\s+)*build\s(?!.*--(?:dockerfile|environment|requirements)\b)/;

/** Definition files, and cells that begin with `%%apptainer build`, are coloured as what they are. */
export const highlightingPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:highlighting',
  description: 'Colours definition files and the cells that build from them.',
  autoStart: true,
  requires: [IEditorLanguageRegistry],
  optional: [INotebookTracker],
  activate: (
    _: JupyterFrontEnd,
    languages: IEditorLanguageRegistry,
    notebooks: INotebookTracker | null
  ): void => {
    languages.addLanguage({
      name: 'apptainer-definition',
      displayName: 'Apptainer definition file',
      mime: DEFINITION_MIME,
      extensions: ['def'],
      load: async () => (await import('./definition')).definition()
    });
    const follow = (panel: NotebookPanel): void => followCells(panel, languages);
    notebooks?.forEach(follow);
    notebooks?.widgetAdded.connect((_sender, panel) => follow(panel));
  }
};

function followCells(
  panel: NotebookPanel,
  languages: IEditorLanguageRegistry
): void {
  const notebook: StaticNotebook = panel.content;
  const colour = async (): Promise<void> => {
    const isNeeded = notebook.widgets.some(cell => findMimeType(cell) !== null);
    if (!isNeeded) {
      return;
    }
    // Editors load languages in the background, and the last to arrive wins: ours has to come after the kernel's.
    await languages.getLanguage(notebook.codeMimetype);
    for (const cell of notebook.isDisposed ? [] : notebook.widgets) {
      cell.model.mimeType = findMimeType(cell) ?? cell.model.mimeType;
    }
  };
  const findMimeType = (cell: Cell): string | null => {
    if (cell.model.type !== 'code') {
      return null;
    }
    const firstLine = cell.model.sharedModel.source.split('\n', 1)[0];
    const isBuild = BUILD_CELL.test(firstLine);
    if (isBuild === (cell.model.mimeType === DEFINITION_MIME)) {
      return null;
    }
    return isBuild ? DEFINITION_MIME : notebook.codeMimetype;
  };
  const start = (): void => void colour();
  notebook.modelContentChanged.connect(start);
  // The notebook gives all cells its kernel's language when that becomes known.
  panel.sessionContext.kernelChanged.connect(start);
  panel.sessionContext.statusChanged.connect(start);
  void panel.revealed.then(start);
}
