import { environmentPlugin } from './environment';
import { filesPlugin } from './files';
import { frontPlugin } from './front';
import { highlightingPlugin } from './highlighting';
import { kernelDialogsPlugin } from './kernels/dialogs';
import { launcherPlugin } from './kernels/launcher';
import { panelPlugin } from './panel';
import { runningPlugin } from './running';
import { startsPlugin } from './starts';

export default [
  kernelDialogsPlugin,
  launcherPlugin,
  filesPlugin,
  highlightingPlugin,
  startsPlugin,
  frontPlugin,
  runningPlugin,
  environmentPlugin,
  panelPlugin
];
