import {
  ILabShell,
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { DocumentWidget } from '@jupyterlab/docregistry';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ITranslator, nullTranslator, TranslationBundle } from '@jupyterlab/translation';

import { CommandIDs } from './commandIDs';
import { DEFINITION_MIME } from './definition';
import { addFileOrders } from './fileOrders';
import { apptainerIcon } from './icons';
import { ImageView } from './image';
import { ImageDocumentFactory, ImageModelFactory } from './imageDocument';

const IN_PALETTE = [
  CommandIDs.inspect,
  CommandIDs.newNotebookIn,
  CommandIDs.makeKernelOfSelected,
  CommandIDs.openTerminal,
  CommandIDs.openKernelTerminal
];
const FACTORY = 'Apptainer image';
const IMAGE_TYPE = 'apptainer-sif';

/** Images and definition files in the file browser: their names and icons, opening them, and what can be done with them. */
export const filesPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:files',
  description: 'Makes images (.sif) and definition files (.def) known to the file browser.',
  autoStart: true,
  optional: [IFileBrowserFactory, INotebookTracker, ICommandPalette, ILabShell, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    browsers: IFileBrowserFactory | null,
    notebooks: INotebookTracker | null,
    palette: ICommandPalette | null,
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const { contents } = app.serviceManager;
    const createView = (path: string): ImageView =>
      new ImageView(contents.localPath(path), trans, (command, args) => app.commands.execute(command, args));
    addFileTypes(app, trans);
    addImageDocuments(app, restorer, trans, createView);
    addFileOrders(app, browsers, notebooks, trans, path => {
      // The one place for documents is taken in Jupyter Notebook.
      showImage(app.shell, createView(path), labShell ? 'main' : 'down');
    });
    for (const command of IN_PALETTE) {
      palette?.addItem({ command, category: trans.__('Apptainer') });
    }
  }
};

function showImage(shell: JupyterFrontEnd.IShell, content: ImageView, area: 'main' | 'down'): void {
  const id = `jupyter-apptainer-image-${content.path}`;
  if ([...shell.widgets(area)].some(widget => widget.id === id)) {
    content.dispose();
  } else {
    const widget = new MainAreaWidget({ content });
    widget.id = id;
    widget.title.label = content.title.label;
    widget.title.caption = content.path;
    widget.title.icon = apptainerIcon;
    shell.add(widget, area);
  }
  shell.activateById(id);
}

function addFileTypes(app: JupyterFrontEnd, trans: TranslationBundle): void {
  app.docRegistry.addFileType({
    name: IMAGE_TYPE,
    displayName: trans.__('Apptainer image'),
    extensions: ['.sif'],
    mimeTypes: ['application/vnd.sylabs.sif'],
    contentType: 'file',
    fileFormat: 'base64',
    icon: apptainerIcon
  });
  app.docRegistry.addFileType({
    name: 'apptainer-def',
    displayName: trans.__('Apptainer definition file'),
    extensions: ['.def'],
    mimeTypes: [DEFINITION_MIME],
    contentType: 'file',
    fileFormat: 'text',
    icon: apptainerIcon
  });
}

function addImageDocuments(
  app: JupyterFrontEnd,
  restorer: ILayoutRestorer | null,
  trans: TranslationBundle,
  createView: (path: string) => ImageView
): void {
  const models = new ImageModelFactory();
  app.docRegistry.addModelFactory(models);
  const factory = new ImageDocumentFactory(
    {
      name: FACTORY,
      label: trans.__('Apptainer image'),
      modelName: models.name,
      fileTypes: [IMAGE_TYPE],
      defaultFor: [IMAGE_TYPE],
      readOnly: true
    },
    createView
  );
  const tracker = new WidgetTracker<DocumentWidget<ImageView>>({ namespace: 'jupyter-apptainer-images' });
  factory.widgetCreated.connect((_, widget) => {
    widget.title.icon = apptainerIcon;
    void tracker.add(widget);
    widget.context.pathChanged.connect(() => void tracker.save(widget));
  });
  app.docRegistry.addWidgetFactory(factory);
  void restorer?.restore(tracker, {
    command: 'docmanager:open',
    args: widget => ({ path: widget.context.path, factory: FACTORY }),
    name: widget => widget.context.path
  });
}
