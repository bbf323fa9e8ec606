import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import {
  ITranslator,
  nullTranslator,
  TranslationBundle
} from '@jupyterlab/translation';
import { SidePanel } from '@jupyterlab/ui-components';
import { AccordionPanel } from '@lumino/widgets';

import { Folder, IGpus, Image, Instance, isServed, Kernels, Overlay, Task } from './api';
import { CommandIDs } from './commandIDs';
import { apptainerIcon } from './icons';
import { LogView } from './log';
import { addOrders } from './orders';
import { Resource } from './resource';
import { ISectionContext, Section } from './section';
import { GpusSection } from './sections/gpus';
import { ImagesSection } from './sections/images';
import { InstancesSection } from './sections/instances';
import { KernelsSection } from './sections/kernels';
import { NotebookSection } from './sections/notebook';
import { OverlaysSection } from './sections/overlays';
import { StorageSection } from './sections/storage';
import { TasksSection } from './sections/tasks';

const PANEL_ID = 'jupyter-apptainer-panel';
const OFTEN_MS = 2_000;
const SELDOM_MS = 30_000;
const OPEN_AT_FIRST = [NotebookSection, ImagesSection, TasksSection];

/** The side bar: images, kernels, containers, overlays, GPUs, tasks and disks of this server. */
export const panelPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:panel',
  description: 'Adds a side bar for images, kernels, containers, overlays, GPUs and tasks.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const sections: Section<unknown>[] = [];
    const context: ISectionContext = {
      trans,
      refresh: () => sections.forEach(section => section.resource.refresh()),
      execute: (command, args) => app.commands.execute(command, args)
    };
    sections.push(...buildSections(trans, context, notebooks));
    const panel = buildPanel(trans, sections);
    const show = (): void => {
      if (!panel.isAttached) {
        app.shell.add(panel, 'left', { rank: 550, type: 'Apptainer' });
        restorer?.add(panel, PANEL_ID);
      }
    };
    app.commands.addCommand(CommandIDs.openPanel, {
      label: trans.__('Show the Apptainer side bar'),
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => {
        show();
        app.shell.activateById(PANEL_ID);
      }
    });
    app.commands.addCommand(CommandIDs.showLog, {
      label: trans.__('Show the log of a task'),
      describedBy: {
        args: {
          type: 'object',
          required: ['id'],
          properties: { id: { type: 'string' }, title: { type: 'string' } }
        }
      },
      execute: args => {
        const log = new LogView(String(args.id), String(args.title ?? args.id), trans);
        const widget = new MainAreaWidget({ content: log });
        widget.title.icon = apptainerIcon;
        app.shell.add(widget, 'down');
        app.shell.activateById(widget.id);
      }
    });
    addOrders(app, trans, context.refresh);
    for (const command of [CommandIDs.openPanel, CommandIDs.pull, CommandIDs.build, CommandIDs.createOverlay]) {
      palette?.addItem({ command, category: trans.__('Apptainer') });
    }
    // A server without the extension, or JupyterLite: nothing is shown, and nothing is said. JupyterLab's start does not wait for it.
    void isServed().then(found => found && show());
  }
};

function buildSections(
  trans: TranslationBundle,
  context: ISectionContext,
  notebooks: INotebookTracker
): Section<any>[] {
  return [
    new NotebookSection(trans.__('This notebook'), new Resource<Instance[]>('/instances', OFTEN_MS), context, notebooks),
    new ImagesSection(trans.__('Images'), new Resource<Image[]>('/images', SELDOM_MS), context),
    new KernelsSection(trans.__('Kernels'), new Resource<Kernels>('/kernels', SELDOM_MS), context),
    new InstancesSection(trans.__('Instances'), new Resource<Instance[]>('/instances', OFTEN_MS), context),
    new OverlaysSection(trans.__('Overlays'), new Resource<Overlay[]>('/overlays', SELDOM_MS), context),
    new GpusSection(trans.__('GPUs'), new Resource<IGpus>('/gpus', OFTEN_MS), context),
    new TasksSection(trans.__('Tasks'), new Resource<Task[]>('/tasks', OFTEN_MS), context),
    new StorageSection(trans.__('Storage'), new Resource<Folder[]>('/storage', SELDOM_MS), context)
  ];
}

function buildPanel(trans: TranslationBundle, sections: readonly Section<any>[]): SidePanel {
  const panel = new SidePanel();
  panel.id = PANEL_ID;
  panel.title.icon = apptainerIcon;
  panel.title.caption = trans.__('Apptainer');
  panel.addClass('jp-apptainer-panel');
  for (const section of sections) {
    panel.addWidget(section);
  }
  // The rest is a click away, and asks nothing of the server until then.
  const accordion = panel.content as AccordionPanel;
  sections.forEach((section, index) => {
    if (!OPEN_AT_FIRST.some(type => section instanceof type)) {
      accordion.collapse(index);
    }
  });
  return panel;
}
