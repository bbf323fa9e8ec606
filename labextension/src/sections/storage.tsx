import { Folder } from '../api';
import { formatBytes } from '../format';
import { Bar, List, Section } from '../section';

/** Where files lie, and how much is left there. */
export class StorageSection extends Section<Folder[]> {
  protected override renderData(folders: Folder[]): JSX.Element {
    const { trans } = this.context;
    return (
      <List
        items={folders}
        label={trans.__('Storage')}
        empty={trans.__('No folder.')}
        renderItem={folder => (
          <li key={folder.name} className="jp-apptainer-item">
            <div className="jp-apptainer-name" title={folder.path}>
              {folder.name}
            </div>
            <Bar
              label={trans.__('Disk of %1', folder.name)}
              fraction={folder.total_bytes ? 1 - folder.free_bytes / folder.total_bytes : null}
              text={trans.__('%1 free of %2', formatBytes(folder.free_bytes), formatBytes(folder.total_bytes))}
            />
            {folder.free_bytes < folder.wanted_bytes && (
              <div className="jp-apptainer-problem">
                {trans.__('%1 should be free; %2 moves it', formatBytes(folder.wanted_bytes), folder.variable)}
              </div>
            )}
          </li>
        )}
      />
    );
  }
}
