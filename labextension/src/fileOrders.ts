/** Commands about a file: one that is named, else the one that is chosen in the file browser, else one that a person is asked for. */
import { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { PageConfig, PathExt } from '@jupyterlab/coreutils';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { INotebookTracker } from '@jupyterlab/notebook';
import { TranslationBundle } from '@jupyterlab/translation';

import { InspectedImage, Instance, isServed, KernelspecRequest, request, Terminal, TerminalRequest } from './api';
import { CommandIDs } from './commandIDs';
import { ask } from './dialogs';
import { nameOf } from './format';
import { apptainerIcon } from './icons';
import { openNewNotebook } from './newNotebook';

const RECIPE = /\.def$|^dockerfile|\.dockerfile$|^environment.*\.ya?ml$|^requirements.*\.txt$/i;
const IMAGE = /\.sif$/i;
const PATH_ARGUMENT = {
  args: {
    type: 'object' as const,
    properties: {
      path: {
        type: 'string' as const,
        description: 'Absolute, or from the server’s folder; without it the file that is chosen in the file browser'
      }
    }
  }
};

/** Add the commands. */
export function addFileOrders(
  app: JupyterFrontEnd,
  browsers: IFileBrowserFactory | null,
  notebooks: INotebookTracker | null,
  trans: TranslationBundle,
  showImage: (path: string) => void
): void {
  const { commands, serviceManager } = app;
  let isThere = false;
  const getSelected = (pattern: RegExp): string | undefined => {
    const item = browsers?.tracker.currentWidget?.selectedItems().next().value;
    return item && pattern.test(item.name) ? serviceManager.contents.localPath(item.path) : undefined;
  };
  const choose = async (args: { path?: unknown }): Promise<string | undefined> => {
    const path = typeof args.path === 'string' ? args.path : getSelected(IMAGE);
    return path || askForImage(trans);
  };
  const hasTerminals = (): boolean =>
    isThere && PageConfig.getOption('terminalsAvailable').toLowerCase() === 'true' && commands.hasCommand('terminal:open');
  const openTerminal = async (body: TerminalRequest): Promise<void> => {
    const { name } = await request<Terminal>('POST', '/terminals', body);
    await commands.execute('terminal:open', { name });
  };

  commands.addCommand(CommandIDs.inspect, {
    label: trans.__('Inspect an image…'),
    caption: trans.__('Show the recipe, labels, packages and signatures of an image'),
    icon: apptainerIcon,
    describedBy: PATH_ARGUMENT,
    isVisible: () => isThere,
    execute: async args => {
      const path = await choose(args);
      if (path) {
        showImage(path);
      }
    }
  });
  commands.addCommand(CommandIDs.newNotebookIn, {
    label: trans.__('New notebook in an image'),
    caption: trans.__('Makes a kernel of the image, if it has none'),
    icon: apptainerIcon,
    describedBy: PATH_ARGUMENT,
    isVisible: () => isThere,
    execute: async args => {
      const path = await choose(args);
      if (path) {
        const kernelName = await findOrMakeKernel(app, path, trans);
        await openNewNotebook(app, kernelName, path.startsWith('/') ? '' : PathExt.dirname(path));
      }
    }
  });
  commands.addCommand(CommandIDs.openTerminal, {
    label: trans.__('Terminal in an image'),
    caption: trans.__('A shell in a container of this image, with the folder of the image'),
    icon: apptainerIcon,
    describedBy: {
      args: {
        type: 'object',
        properties: { ...PATH_ARGUMENT.args.properties, instance: { type: 'string', description: 'A running instance instead' } }
      }
    },
    isVisible: hasTerminals,
    execute: async args => {
      if (typeof args.instance === 'string') {
        return openTerminal({ instance: args.instance });
      }
      const path = await choose(args);
      return path && openTerminal({ image: path });
    }
  });
  commands.addCommand(CommandIDs.openKernelTerminal, {
    label: trans.__('Terminal in the container of this notebook'),
    caption: trans.__('A shell beside the kernel, in the same container'),
    icon: apptainerIcon,
    describedBy: { args: { type: 'object', properties: {} } },
    isVisible: hasTerminals,
    isEnabled: () => Boolean(notebooks?.currentWidget?.sessionContext.session?.kernel),
    execute: async () => {
      const kernelId = notebooks?.currentWidget?.sessionContext.session?.kernel?.id;
      const instances = await request<Instance[]>('GET', '/instances');
      const instance = instances.find(found => found.kernel_id === kernelId);
      if (!instance) {
        throw new Error(trans.__('The kernel of this notebook runs in no container.'));
      }
      await openTerminal({ instance: instance.name });
    }
  });
  commands.addCommand(CommandIDs.buildSelected, {
    label: trans.__('Build an image…'),
    caption: trans.__('Build an image of the recipe that is chosen in the file browser'),
    icon: apptainerIcon,
    describedBy: { args: { type: 'object', properties: {} } },
    isVisible: () => isThere && commands.hasCommand(CommandIDs.build) && getSelected(RECIPE) !== undefined,
    execute: () => commands.execute(CommandIDs.build, { path: getSelected(RECIPE) ?? '' })
  });
  commands.addCommand(CommandIDs.makeKernelOfSelected, {
    label: trans.__('Make a kernel of an image…'),
    caption: trans.__('Add a kernel that runs in an image to this server'),
    icon: apptainerIcon,
    describedBy: PATH_ARGUMENT,
    isVisible: () => isThere && commands.hasCommand(CommandIDs.makeKernel),
    execute: async args => {
      const image = await choose(args);
      return image && commands.execute(CommandIDs.makeKernel, { image });
    }
  });

  void isServed().then(found => {
    isThere = found;
    commands.notifyCommandChanged();
  });
}

async function askForImage(trans: TranslationBundle): Promise<string | undefined> {
  const answers = await ask(
    trans.__('Which image?'),
    [
      {
        name: 'path',
        label: trans.__('Image'),
        help: trans.__('A file or an unpacked image, from the server’s folder'),
        isRequired: true
      }
    ],
    trans.__('Choose'),
    trans
  );
  return answers?.path;
}

/** Return the name of a kernel that runs in an image; one is made where there is none. */
async function findOrMakeKernel(app: JupyterFrontEnd, path: string, trans: TranslationBundle): Promise<string> {
  const { kernelspecs } = app.serviceManager;
  const image = await request<InspectedImage>('GET', `/image?path=${encodeURIComponent(path)}`);
  const known = image.kernels.find(name => kernelspecs.specs?.kernelspecs[name]);
  if (known) {
    return known;
  }
  const title = nameOf(image.path).replace(IMAGE, '');
  const name = findFreeName(title, Object.keys(kernelspecs.specs?.kernelspecs ?? {}));
  const body: KernelspecRequest = {
    name,
    display_name: title,
    config: { image: image.path },
    replace: false,
    check: true
  };
  const notice = Notification.emit(trans.__('Making a kernel of %1', title), 'in-progress', { autoClose: false });
  try {
    await request('POST', '/kernelspecs', body);
    await kernelspecs.refreshSpecs();
  } finally {
    Notification.dismiss(notice);
  }
  return name;
}

function findFreeName(title: string, taken: readonly string[]): string {
  const stem = title.toLowerCase().replace(/[^a-z0-9_.-]+/g, '-').slice(0, 90) || 'image';
  let name = stem;
  for (let number = 2; taken.includes(name); number += 1) {
    name = `${stem}-${number}`;
  }
  return name;
}
