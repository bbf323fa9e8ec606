/** Our commands. */
export namespace CommandIDs {
  export const openPanel = 'apptainer:open-panel';
  export const pull = 'apptainer:pull-image';
  export const build = 'apptainer:build-image';
  export const buildSelected = 'apptainer:build-selected';
  export const makeKernelOfSelected = 'apptainer:make-kernel-of-selected';
  export const makeKernel = 'apptainer:make-kernel';
  export const createOverlay = 'apptainer:create-overlay';
  export const login = 'apptainer:login';
  export const showLog = 'apptainer:show-log';
  export const inspect = 'apptainer:inspect-image';
  export const newNotebookIn = 'apptainer:new-notebook-in-image';
  export const openTerminal = 'apptainer:open-terminal';
  export const openKernelTerminal = 'apptainer:open-terminal-of-notebook';
  export const newNotebook = 'apptainer:new-notebook';
  export const launch = 'apptainer:launch-notebook';
  export const chooseEnvironment = 'apptainer:choose-environment';
  export const cancelStart = 'apptainer:cancel-start';
  export const repairStart = 'apptainer:repair-start';
}
