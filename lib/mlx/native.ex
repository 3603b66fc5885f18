defmodule Mlx.Native do
  @moduledoc false

  use Rustler, otp_app: :mlx, crate: :mlx_nif, path: "native/mlx_nif"

  def op_table, do: nif_error()

  def device_available, do: nif_error()

  def memory_stats, do: nif_error()
  def memory_reset_peak, do: nif_error()
  def memory_set_limit(_bytes), do: nif_error()
  def memory_set_cache_limit(_bytes, _tag), do: nif_error()
  def memory_clear_cache(_tag), do: nif_error()

  def garbage_collector, do: nif_error()
  def garbage_callers, do: nif_error()
  def garbage_collected(_round), do: nif_error()

  def stream_new(_device), do: nif_error()
  def stream_close(_stream), do: nif_error()
  def stream_submit(_target, _instructions, _inputs, _outputs), do: nif_error()
  def stream_run(_target, _row, _inputs, _attributes), do: nif_error()
  def stream_await_room(_target, _tag), do: nif_error()
  def stream_set_queue_limit(_jobs), do: nif_error()
  def stream_queue_limit, do: nif_error()
  def stream_set_stepwise(_stepwise), do: nif_error()
  def stream_synchronize(_target, _tag), do: nif_error()
  def stream_queue_depths, do: nif_error()

  def program_new(_program, _constants, _fuse), do: nif_error()
  def program_run(_target, _program, _inputs, _donated), do: nif_error()

  def profile_listing(_program), do: nif_error()
  def profile_run(_target, _program, _inputs, _tag), do: nif_error()

  def openblas(_path), do: nif_error()

  def tensor_from_binary(_target, _binary, _dims, _type), do: nif_error()
  def tensor_read(_tensor, _tag), do: nif_error()
  def tensor_eval(_tensors, _tag), do: nif_error()
  def tensor_async_eval(_tensor), do: nif_error()
  def tensor_signature(_tensor, _tag), do: nif_error()
  def tensor_is_computed(_tensor), do: nif_error()
  def tensor_deallocate(_tensor), do: nif_error()

  def pointer_to_local(_tensor, _tag), do: nif_error()
  def pointer_to_ipc(_tensor, _values, _permissions, _tag), do: nif_error()
  def pointer_from_local(_target, _source, _dims, _type, _tag), do: nif_error()
  def pointer_from_ipc(_target, _source, _dims, _type, _tag), do: nif_error()

  def file_load(_device, _part, _dims, _type, _tag), do: nif_error()

  defp nif_error, do: :erlang.nif_error(:nif_not_loaded)
end
