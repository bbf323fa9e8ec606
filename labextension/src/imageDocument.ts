/** Opening an image in the file browser looks into it; its bytes stay on the server. */
import {
  ABCWidgetFactory,
  Base64ModelFactory,
  DocumentModel,
  DocumentRegistry,
  DocumentWidget
} from '@jupyterlab/docregistry';
import { Contents } from '@jupyterlab/services';

import { ImageView } from './image';

/** A model without content. */
export class ImageModelFactory extends Base64ModelFactory {
  override get name(): string {
    return 'apptainer-image';
  }

  /** Without a format nothing is fetched. */
  override get fileFormat(): Contents.FileFormat {
    return null as unknown as Contents.FileFormat;
  }

  override createNew(
    options: Parameters<Base64ModelFactory['createNew']>[0] = {}
  ): DocumentRegistry.ICodeModel {
    // Of other models JupyterLab lets the server make a checkpoint when they are opened: a second copy of the image.
    return new DocumentModel({ ...options, collaborationEnabled: true });
  }
}

/** An image's view as a document. */
export class ImageDocumentFactory extends ABCWidgetFactory<DocumentWidget<ImageView>> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions<DocumentWidget<ImageView>>,
    private _createView: (path: string) => ImageView
  ) {
    super(options);
  }

  protected createNewWidget(context: DocumentRegistry.Context): DocumentWidget<ImageView> {
    const content = this._createView(context.path);
    context.fileChanged.connect(content.load, content);
    content.disposed.connect(() => context.fileChanged.disconnect(content.load, content));
    return new DocumentWidget({ content, context });
  }
}
