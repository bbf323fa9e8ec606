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
  export const newNotebook = 'apptainer:new-notebook';
}
