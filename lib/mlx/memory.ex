defmodule Mlx.Memory do
  @moduledoc """
  The memory of tensors, of all devices and processes together.

  A tensor has memory once it is computed, until nothing refers to it any more. Freed memory
  is kept for the next tensors, because it is slow to get it from the system anew: that is
  the *cache*. See the [guide](memory.html) for who lets go of what and when.

  What is set here holds until the VM ends. `config :mlx, memory_limit:` and `cache_limit:`
  set the same at the start, see `Mlx`.
  """

  alias Mlx.{Dispatch, Native}

  @type stats :: %{
          active: non_neg_integer,
          peak: non_neg_integer,
          limit: pos_integer,
          cache: non_neg_integer,
          cache_limit: non_neg_integer
        }

  @doc """
  A map of numbers of bytes:

    * `:active` - what tensors hold now, those included that only garbage refers to
    * `:peak` - the most that they have held since the start, or since `reset_peak/0`
    * `:limit` - how much they may hold
    * `:cache` - freed memory that is kept
    * `:cache_limit` - how much of it may be kept; on NVIDIA GPUs the cache may be larger by one array

  Tensors that are not computed yet hold nothing. On a machine with a GPU, memory that the
  CPU device uses is counted together with that of the GPU.

  ## Examples

      iex> tensor = Mlx.eval(Nx.iota({1024}, type: :s32, backend: {Mlx.Backend, device: :cpu}))
      iex> stats = Mlx.Memory.stats()
      iex> stats.active >= Nx.byte_size(tensor) and stats.peak >= stats.active
      true

  """
  @spec stats() :: stats
  def stats, do: Native.memory_stats()

  @doc """
  Lets the peak start from what is held now.

  ## Examples

      iex> Mlx.Memory.reset_peak()
      :ok

  """
  @spec reset_peak() :: :ok
  def reset_peak, do: Native.memory_reset_peak()

  @doc """
  Gives the memory that is kept for the next tensors back to the system, and returns when
  that is done.

  It frees nothing that something refers to, garbage included: collect that first, with
  `:erlang.garbage_collect/0`. A stream whose job takes more than half a second is not
  waited for. What is freed after that is kept again.

  ## Examples

      iex> Mlx.Memory.clear_cache()
      :ok
      iex> Mlx.Memory.stats().cache < 2 ** 20
      true

  """
  @spec clear_cache() :: :ok
  def clear_cache, do: Dispatch.await(&Native.memory_clear_cache/1)

  @doc """
  Sets how many bytes tensors may hold.

  What is there stays, also if it is more. A tensor for which there is no room even after
  all processes have collected their garbage is not made: reading it raises `Mlx.Error`
  with `kind: :memory`.

  Raises `ArgumentError` unless it is a positive integer.

  ## Examples

      iex> limit = Mlx.Memory.stats().limit
      iex> Mlx.Memory.set_limit(8 * 1024 ** 3)
      :ok
      iex> Mlx.Memory.stats().limit
      8589934592
      iex> Mlx.Memory.set_limit(limit)
      :ok

  """
  @spec set_limit(pos_integer) :: :ok
  def set_limit(bytes) do
    Mlx.Config.check!(:memory_limit, bytes, "Mlx.Memory.set_limit/1")
    Native.memory_set_limit(bytes)
  end

  @doc """
  Sets how many freed bytes are kept for the next tensors.

  What is kept beyond that is given back to the system. With `0` every tensor gets its
  memory from the system, which is slow for large ones.

  Raises `ArgumentError` unless it is an integer that is not negative.

  ## Examples

      iex> limit = Mlx.Memory.stats().cache_limit
      iex> Mlx.Memory.set_cache_limit(0)
      :ok
      iex> Mlx.Memory.stats().cache
      0
      iex> Mlx.Memory.set_cache_limit(limit)
      :ok

  """
  @spec set_cache_limit(non_neg_integer) :: :ok
  def set_cache_limit(bytes) do
    Mlx.Config.check!(:cache_limit, bytes, "Mlx.Memory.set_cache_limit/1")
    Dispatch.await(&Native.memory_set_cache_limit(bytes, &1))
  end
end
