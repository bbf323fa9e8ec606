/** Notifications that follow long work, wherever a person is in the meantime. */
import { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';

import { request, Task } from './api';
import { CommandIDs } from './commandIDs';
import { showFailure } from './section';

const FOLLOW_MS = 1000;
/** Long enough to choose what to do with it. */
const DONE_SHOWN_MS = 20_000;

/** Tell of a task until it is over, with its progress; returns how it ended, or nothing where it was forgotten. */
export async function followTask(
  started: Task,
  trans: TranslationBundle,
  commands: JupyterFrontEnd['commands'],
  refresh: () => void = () => undefined
): Promise<Task['state'] | undefined> {
  const cancel = {
    label: trans.__('Cancel'),
    callback: (): void => void request('DELETE', `/tasks/${started.id}`).then(refresh, () => undefined)
  };
  const log = {
    label: trans.__('Log'),
    callback: (): void => void commands.execute(CommandIDs.showLog, { id: started.id, title: started.title })
  };
  const id = Notification.emit(started.title, 'in-progress', { autoClose: false, actions: [cancel, log] });
  let task = started;
  while (task.state === 'queued' || task.state === 'running') {
    await new Promise(resolve => window.setTimeout(resolve, FOLLOW_MS));
    try {
      task = await request<Task>('GET', `/tasks/${started.id}`);
    } catch {
      // Forgotten, or no server any more: there is nothing to tell.
      Notification.dismiss(id);
      return undefined;
    }
    Notification.update({
      id,
      message: `${task.title}: ${task.phase}`,
      type: 'in-progress',
      progress: task.percent === null ? undefined : task.percent / 100,
      autoClose: false,
      actions: [cancel, log]
    });
  }
  refresh();
  const error = task.error as { message?: string } | null;
  Notification.update({
    id,
    message: task.state === 'done' ? trans.__('%1: done', task.title) : `${task.title}: ${error?.message ?? task.state}`,
    type: task.state === 'done' ? 'success' : task.state === 'cancelled' ? 'info' : 'error',
    autoClose: task.state === 'done' ? DONE_SHOWN_MS : false,
    actions: task.state === 'done' ? listNextSteps(task, trans, commands) : [log]
  });
  return task.state;
}

/** What people do with an image that has just been made. */
function listNextSteps(
  task: Task,
  trans: TranslationBundle,
  commands: JupyterFrontEnd['commands']
): Notification.IAction[] {
  const path = (task.result as { path?: unknown } | null)?.path;
  if (!['image-build', 'image-pull'].includes(task.kind) || typeof path !== 'string') {
    return [];
  }
  const run = (command: string) => (): void => void commands.execute(command, { path }).catch(showFailure);
  return [
    { label: trans.__('New notebook in it'), callback: run(CommandIDs.newNotebookIn) },
    { label: trans.__('Inspect'), callback: run(CommandIDs.inspect) }
  ];
}
