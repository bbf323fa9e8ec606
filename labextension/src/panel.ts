import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
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
import { DEFAULT_OPTIONS, loadOptions } from './options';
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
const IN_PALETTE = [CommandIDs.openPanel, CommandIDs.pull, CommandIDs.build, CommandIDs.createOverlay, CommandIDs.login];
const ASKED_OFTEN = ['notebook', 'instances', 'gpus', 'tasks'];
/** The side bar: images, kernels, containers, overlays, GPUs, tasks and disks of this server. */
export const panelPlugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-apptainer:panel',
  description: 'Adds a side bar for images, kernels, containers, overlays, GPUs and tasks.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ICommandPalette, ILayoutRestorer, ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('jupyter_apptainer');
    const sections: Section<unknown>[] = [];
    let options = DEFAULT_OPTIONS;
    const context: ISectionContext = {
      trans,
      refresh: () => sections.forEach(section => section.resource.refresh()),
      execute: (command, args) => app.commands.execute(command, args)
    };
    const named = buildSections(trans, context, notebooks);
    sections.push(...Object.values(named));
    const panel = buildPanel(trans, sections);
    const show = (): void => {
      if (!panel.isAttached) {
        app.shell.add(panel, 'left', { rank: 550, type: 'Apptainer' });
        restorer?.add(panel, PANEL_ID);
      }
    };
    app.commands.addCommand(CommandIDs.openPanel, {
      label: trans.__('Show the Apptainer side bar'),
      caption: trans.__('Images, kernels, containers, overlays, GPUs, tasks and disks of this server'),
      describedBy: {
        args: {
          type: 'object',
          properties: { section: { type: 'string', description: '“notebook” unfolds “This notebook”.' } }
        }
      },
      execute: args => {
        show();
        if (args.section === 'notebook') {
          const index = sections.findIndex(section => section instanceof NotebookSection);
          (panel.content as AccordionPanel).expand(index);
        }
        // Jupyter Notebook closes a side bar that is activated while it is the current one, seen or not.
        for (let attempt = 0; attempt < 2 && !panel.isVisible; attempt += 1) {
          app.shell.activateById(PANEL_ID);
        }
        panel.activate();
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
    app.serviceManager.kernelspecs.specsChanged.connect(context.refresh);
    addOrders(app, trans, context.refresh, () => options.notifications);
    // A server without the extension, or JupyterLite: nothing is shown, and nothing is said. JupyterLab's start does not wait for it.
    const settled = loadOptions(registry, panelPlugin.id, found => {
      options = found;
      askEvery(named, options.refreshSeconds);
    });
    void Promise.all([isServed(), settled]).then(([found]) => {
      openSections(panel, named, options.openSections);
      if (!found) {
        return;
      }
      for (const command of IN_PALETTE) {
        palette?.addItem({ command, category: trans.__('Apptainer') });
      }
      if (options.isShown) {
        show();
      }
    });
  }
};

function askEvery(sections: Record<string, Section<unknown>>, seconds: number): void {
  for (const name of ASKED_OFTEN) {
    sections[name].resource.intervalMs = seconds * 1000;
  }
}

function buildSections(
  trans: TranslationBundle,
  context: ISectionContext,
  notebooks: INotebookTracker
): Record<string, Section<any>> {
  return {
    notebook: new NotebookSection(trans.__('This notebook'), new Resource<Instance[]>('/instances', OFTEN_MS), context, notebooks),
    images: new ImagesSection(trans.__('Images'), new Resource<Image[]>('/images', SELDOM_MS), context),
    kernels: new KernelsSection(trans.__('Kernels'), new Resource<Kernels>('/kernels', SELDOM_MS), context),
    instances: new InstancesSection(trans.__('Instances'), new Resource<Instance[]>('/instances', OFTEN_MS), context),
    overlays: new OverlaysSection(trans.__('Overlays'), new Resource<Overlay[]>('/overlays', SELDOM_MS), context),
    gpus: new GpusSection(trans.__('GPUs'), new Resource<IGpus>('/gpus', OFTEN_MS), context),
    tasks: new TasksSection(trans.__('Tasks'), new Resource<Task[]>('/tasks', OFTEN_MS), context),
    storage: new StorageSection(trans.__('Storage'), new Resource<Folder[]>('/storage', SELDOM_MS), context)
  };
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
  return panel;
}

/** The rest is a click away, and asks nothing of the server until then. */
function openSections(panel: SidePanel, sections: Record<string, Section<unknown>>, open: readonly string[]): void {
  const accordion = panel.content as AccordionPanel;
  Object.keys(sections).forEach((name, index) => {
    if (open.includes(name)) {
      accordion.expand(index);
    } else {
      accordion.collapse(index);
    }
  });
}
