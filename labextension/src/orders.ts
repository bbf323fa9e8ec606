/** Commands that ask a person for what the server needs, and then order it there. */
import { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { TranslationBundle } from '@jupyterlab/translation';

import { KernelspecRequest, LoginRequest, Order, OverlayRequest, request, Task } from './api';
import { CommandIDs } from './commandIDs';
import { ask } from './dialogs';
import { followTask } from './follow';
import { nameOf } from './format';
import { openNewNotebook } from './newNotebook';

const NO_ARGUMENTS = { args: { type: 'object' as const, properties: {} } };

/** Add the commands; `refresh` is called after each change. isTold: whether notifications tell of tasks. */
export function addOrders(
  app: JupyterFrontEnd,
  trans: TranslationBundle,
  refresh: () => void,
  isTold: () => boolean
): void {
  const { commands, serviceManager } = app;

  const follow = (task: Task): void => {
    if (isTold()) {
      void followTask(task, trans, commands, refresh);
    }
  };

  const order = async (what: Order): Promise<void> => {
    const task = await request<Task>('POST', '/tasks', what);
    refresh();
    follow(task);
  };

  commands.addCommand(CommandIDs.pull, {
    label: trans.__('Pull an image…'),
    caption: trans.__('Fetch an image from a registry, as a task that goes on without the page'),
    describedBy: NO_ARGUMENTS,
    execute: async () => {
      const answers = await ask(
        trans.__('Pull an image'),
        [
          {
            name: 'uri',
            label: trans.__('Address'),
            help: trans.__('For example docker://python:3.12-slim or oras://registry/name:tag'),
            isRequired: true
          },
          {
            name: 'target',
            label: trans.__('File'),
            help: trans.__('Empty: named after the address, in your folder of images')
          },
          { name: 'no_https', label: trans.__('The registry speaks plain http'), kind: 'checkbox' }
        ],
        trans.__('Pull'),
        trans
      );
      if (answers) {
        await order({
          kind: 'image-pull',
          args: {
            uri: answers.uri,
            no_https: answers.no_https === 'true',
            ...(answers.target ? { target: answers.target } : {})
          }
        });
      }
    }
  });

  commands.addCommand(CommandIDs.build, {
    label: trans.__('Build an image…'),
    caption: trans.__('Build an image of a definition file, Dockerfile, environment.yml or requirements.txt'),
    describedBy: { args: { type: 'object', properties: { path: { type: 'string' } } } },
    execute: async args => {
      const recipe = String(args.path ?? '');
      const answers = await ask(
        trans.__('Build an image'),
        [
          { name: 'path', label: trans.__('Recipe'), value: recipe, help: trans.__('A file, from the server’s folder'), isRequired: true },
          {
            name: 'kind',
            label: trans.__('Kind of recipe'),
            value: guessKind(recipe),
            choices: [
              ['def', trans.__('definition file')],
              ['dockerfile', 'Dockerfile'],
              ['environment', 'environment.yml'],
              ['requirements', 'requirements.txt'],
              ['folder', trans.__('folder')]
            ]
          },
          {
            name: 'target',
            label: trans.__('Image'),
            value: recipe ? PathExt.join(PathExt.dirname(recipe), `${PathExt.basename(recipe, PathExt.extname(recipe))}.sif`) : '',
            isRequired: true
          },
          { name: 'host_settings', label: trans.__('With this machine’s certificates, proxies and package mirrors'), kind: 'checkbox' },
          { name: 'force', label: trans.__('Replace an image that is there'), kind: 'checkbox' }
        ],
        trans.__('Build'),
        trans
      );
      if (answers) {
        await order({
          kind: 'image-build',
          args: {
            recipe: { kind: answers.kind as ReturnType<typeof guessKind>, path: answers.path },
            target: answers.target,
            host_settings: answers.host_settings === 'true',
            force: answers.force === 'true'
          }
        });
      }
    }
  });

  commands.addCommand(CommandIDs.makeKernel, {
    label: trans.__('Make a kernel of an image…'),
    caption: trans.__('Add a kernel that runs in an image to this server'),
    describedBy: { args: { type: 'object', required: ['image'], properties: { image: { type: 'string' } } } },
    execute: async args => {
      const image = String(args.image);
      const stem = nameOf(image).replace(/\.sif$/, '');
      const answers = await ask(
        trans.__('Make a kernel of %1', nameOf(image)),
        [
          { name: 'display_name', label: trans.__('Name that people see'), value: stem, isRequired: true },
          {
            name: 'name',
            label: trans.__('Short name'),
            value: stem.toLowerCase().replace(/[^a-z0-9_.-]+/g, '-'),
            help: trans.__('Letters, digits, dots, hyphens and underscores'),
            isRequired: true
          },
          {
            name: 'nv',
            label: trans.__('NVIDIA GPU'),
            choices: [
              ['auto', trans.__('where this machine has one')],
              ['true', trans.__('yes')],
              ['false', trans.__('no')]
            ]
          }
        ],
        trans.__('Make'),
        trans
      );
      if (answers) {
        const body: KernelspecRequest = {
          name: answers.name,
          display_name: answers.display_name,
          config: { image, nv: answers.nv === 'auto' ? 'auto' : answers.nv === 'true' },
          replace: false,
          check: true
        };
        await request('POST', '/kernelspecs', body);
        await serviceManager.kernelspecs.refreshSpecs();
        refresh();
        Notification.success(trans.__('The kernel “%1” is there.', answers.display_name), { autoClose: 5000 });
      }
    }
  });

  commands.addCommand(CommandIDs.createOverlay, {
    label: trans.__('Create an overlay…'),
    caption: trans.__('Create a layer that can be written to, for packages and data of a kernel'),
    describedBy: NO_ARGUMENTS,
    execute: async () => {
      const answers = await ask(
        trans.__('Create an overlay'),
        [
          { name: 'path', label: trans.__('File'), help: trans.__('From the server’s folder'), isRequired: true },
          { name: 'size_mib', label: trans.__('Size in MiB'), kind: 'number', value: '1024', isRequired: true }
        ],
        trans.__('Create'),
        trans
      );
      if (answers) {
        const body: OverlayRequest = { path: answers.path, size_mib: Number(answers.size_mib) };
        await request('POST', '/overlays', body);
        refresh();
      }
    }
  });

  commands.addCommand(CommandIDs.login, {
    label: trans.__('Log in to a registry…'),
    caption: trans.__('Give the engine the password of a registry'),
    describedBy: {
      args: { type: 'object', properties: { task: { type: 'string' }, uri: { type: 'string' } } }
    },
    execute: async args => {
      const host = /^\w+:\/\/([^/]+)\//.exec(String(args.uri ?? ''))?.[1] ?? '';
      const answers = await ask(
        trans.__('Log in to a registry'),
        [
          { name: 'host', label: trans.__('Registry'), value: host, isRequired: true },
          { name: 'username', label: trans.__('User'), isRequired: true },
          { name: 'password', label: trans.__('Password or token'), kind: 'password', isRequired: true },
          { name: 'no_https', label: trans.__('The registry speaks plain http'), kind: 'checkbox' }
        ],
        trans.__('Log in'),
        trans
      );
      if (answers) {
        const body: LoginRequest = {
          host: answers.host,
          username: answers.username,
          password: answers.password,
          no_https: answers.no_https === 'true'
        };
        await request('POST', '/logins', body);
        if (args.task) {
          follow(await request<Task>('POST', `/tasks/${String(args.task)}/retry`, {}));
        }
        refresh();
      }
    }
  });

  commands.addCommand(CommandIDs.newNotebook, {
    label: trans.__('New notebook'),
    describedBy: { args: { type: 'object', required: ['kernel'], properties: { kernel: { type: 'string' } } } },
    execute: args => openNewNotebook(app, String(args.kernel))
  });
}

function guessKind(path: string): 'def' | 'dockerfile' | 'environment' | 'requirements' | 'folder' {
  const name = PathExt.basename(path).toLowerCase();
  if (name.startsWith('dockerfile')) {
    return 'dockerfile';
  }
  if (/\.ya?ml$/.test(name)) {
    return 'environment';
  }
  return /^requirements.*\.txt$/.test(name) ? 'requirements' : 'def';
}
