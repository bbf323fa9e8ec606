import { environmentPlugin } from './environment';
import { filesPlugin } from './files';
import { highlightingPlugin } from './highlighting';
import { panelPlugin } from './panel';
import { phasesPlugin } from './phases';

export default [filesPlugin, highlightingPlugin, phasesPlugin, environmentPlugin, panelPlugin];
