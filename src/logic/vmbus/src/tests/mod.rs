mod backend;
mod conversations;
mod devices;
mod faults;
mod hostile;
mod saved;
mod world;
