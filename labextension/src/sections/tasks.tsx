import { CommandIDs } from '../commandIDs';
import { request, Task } from '../api';
import { ActionButton, Bar, List, Section } from '../section';

const ACTIVE: readonly Task['state'][] = ['queued', 'running'];

/** Pulls, builds and other long work, which goes on without the page. */
export class TasksSection extends Section<Task[]> {
  protected override renderData(tasks: Task[]): JSX.Element {
    const { trans } = this.context;
    return (
      <List
        items={tasks}
        label={trans.__('Tasks')}
        empty={trans.__('No task.')}
        renderItem={task => this._renderTask(task)}
      />
    );
  }

  private _renderTask(task: Task): JSX.Element {
    const { trans, execute, refresh } = this.context;
    const isActive = ACTIVE.includes(task.state);
    const error = task.error as { message?: string; hint?: string } | null;
    return (
      <li key={task.id} className="jp-apptainer-item">
        <div className="jp-apptainer-name" title={task.target}>
          {task.title}
        </div>
        {isActive ? (
          <Bar
            label={task.title}
            fraction={task.percent === null ? null : task.percent / 100}
            text={task.percent === null ? task.phase : `${task.phase} ${Math.round(task.percent)}%`}
          />
        ) : (
          <div className="jp-apptainer-detail">{this._describe(task.state)}</div>
        )}
        {error?.message && (
          <div className="jp-apptainer-problem">
            {error.message}
            {error.hint && <span className="jp-apptainer-hint">{error.hint}</span>}
          </div>
        )}
        <div className="jp-apptainer-actions">
          <ActionButton
            label={trans.__('Log')}
            about={task.title}
            action={() => execute(CommandIDs.showLog, { id: task.id, title: task.title })}
          />
          {task.state === 'needs-auth' && (
            <ActionButton
              label={trans.__('Log in…')}
              about={task.title}
              action={() => execute(CommandIDs.login, { task: task.id, uri: readUri(task) })}
            />
          )}
          {['failed', 'cancelled'].includes(task.state) && (
            <ActionButton
              label={trans.__('Again')}
              about={task.title}
              action={async () => {
                await request('POST', `/tasks/${task.id}/retry`, {});
                refresh();
              }}
            />
          )}
          <ActionButton
            label={isActive ? trans.__('Cancel') : trans.__('Forget')}
            about={task.title}
            action={async () => {
              await request('DELETE', `/tasks/${task.id}`);
              refresh();
            }}
          />
        </div>
      </li>
    );
  }

  private _describe(state: Task['state']): string {
    const { trans } = this.context;
    switch (state) {
      case 'done':
        return trans.__('done');
      case 'failed':
        return trans.__('failed');
      case 'needs-auth':
        return trans.__('the registry wants a password');
      case 'cancelled':
        return trans.__('cancelled');
      default:
        return '';
    }
  }
}

function readUri(task: Task): string {
  const uri = (task.args as { uri?: unknown }).uri;
  return typeof uri === 'string' ? uri : '';
}
