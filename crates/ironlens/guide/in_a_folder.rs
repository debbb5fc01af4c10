// What the guide's snippets write goes to a folder that ends with them.
{
    struct Folder(std::path::PathBuf);
    impl Drop for Folder {
        fn drop(&mut self) {
            std::env::set_current_dir(std::env::temp_dir()).ok();
            std::fs::remove_dir_all(&self.0).ok();
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let folder = std::env::temp_dir().join(format!("ironlens-guide-{}-{now}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::env::set_current_dir(&folder)?;
    Folder(folder)
}
