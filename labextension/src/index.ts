import { environmentPlugin } from './environment';
import { filesPlugin } from './files';
import { highlightingPlugin } from './highlighting';
import { phasesPlugin } from './phases';

export default [filesPlugin, highlightingPlugin, phasesPlugin, environmentPlugin];
