import { kernelDialogsPlugin } from './kernels/dialogs';
import { environmentPlugin } from './environment';
import { filesPlugin } from './files';
import { highlightingPlugin } from './highlighting';
import { panelPlugin } from './panel';
import { startsPlugin } from './starts';

export default [
  kernelDialogsPlugin,
  filesPlugin,
  highlightingPlugin,
  startsPlugin,
  environmentPlugin,
  panelPlugin
];
