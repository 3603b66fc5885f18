defmodule Mlx do
  @moduledoc """
  Nx on Apple's MLX: Apple GPUs, NVIDIA GPUs and plain CPUs.

  Most users need only this line, and then Nx:

      Nx.default_backend(Mlx.Backend)

  The guides begin with [Installation](installation.html) and [Compiling](compiling.html), and
  [Troubleshooting](troubleshooting.html) has every message.

  This module has what Nx has no word for: when a computation starts, when it ends, and
  what MLX holds. Its functions take tensors of `Mlx.Backend`, and raise `ArgumentError` for
  others. Those that wait raise `Mlx.Error` if what they wait for could not be computed.

  ## When things are computed

  An operation is queued for the worker of its device and returns at once. The worker
  starts to compute when it has nothing else to do, or when a result is asked for with
  `Nx.to_binary/2`, by printing it, or with `eval/1`.

  ## Configuration

  All that `config :mlx` knows. Each option is checked when the application starts, and what
  is none raises `ArgumentError`, as does an option that there is not.

      config :mlx, device: :cpu, memory_limit: 8 * 1024 ** 3

  | option | values | default | meaning |
  |---|---|---|---|
  | `:device` | `:gpu`, `:cpu` | the GPU where there is one | where tensors go if nothing else is asked for, see `Mlx.Device` |
  | `:dispatch` | `:pipelined`, `:sync` | `:pipelined` | `:sync` computes each operation by itself, also inside compiled functions, waits for it and raises its failure at once, for finding faults; it is slow |
  | `:f64` | `:error`, `:downcast` | `:error` | `:downcast` computes `f64` as `f32` on devices that lack it, see [types](`m:Mlx.Backend#module-types`) |
  | `:inspect` | `:eager`, `:lazy` | `:eager` | whether printing a tensor computes it; with `:lazy`, one whose values nobody has waited for is printed as `not computed`, so that logs and crash reports don't wait for the device |
  | `:memory_limit` | bytes, at least 1 | the memory of the GPU, else nine tenths of that of the machine or of its control group | how much tensors may hold in all, see `Mlx.Memory.set_limit/1` |
  | `:cache_limit` | bytes, at least 0 | an eighth of the memory limit | how much freed memory is kept for the next tensors, see `Mlx.Memory.set_cache_limit/1` |
  | `:queue_limit` | operations, at least 1 | 4096 | how many operations, or calls of compiled functions, a stream holds that it has not begun; who queues more waits until there is room |

  These are read when Mlx is compiled. After a change run `mix deps.compile mlx --force`.

  | option | values | default | meaning |
  |---|---|---|---|
  | `:add_backend_on_inspect` | `true`, `false` | `true` | whether a printed tensor says its backend and device |
  | `:debug_bounds_check` | `true`, `false` | `false` | raise `Mlx.Error` with `kind: :value` if an index for `Nx.gather/3`, `Nx.take/3`, `Nx.take_along_axis/3`, `Nx.indexed_add/4` or `Nx.indexed_put/4` is negative or too large; else it is moved to the edge, as Nx always does with the starts of `Nx.slice/4` and `Nx.put_slice/3` |
  | `:debug_detect_nan_inf` | `true`, `false` | `false` | raise `Mlx.Error` with `kind: :value` at an operation that gives NaN if none of its operands has NaN, or an infinity if none of them has an infinity; tensors made of numbers or binaries may have both |

  The last two wait for the device at every operation that they check, in functions that
  `Mlx.Compiler` compiles as well. They cost nothing where they are not set.
  """

  alias Mlx.Dispatch
  alias Nx.Tensor, as: T

  @doc """
  Makes a tensor from a binary in native byte order.

  ## Options

    * `:device` - `:cpu` or `:gpu`, where the tensor goes; `Mlx.Device.default/0` by default

  Raises `Mlx.Error` with `kind: :shape` if the binary has not the size that shape and
  type ask for, with `kind: :type` if the device lacks the type, and with `kind: :device` if the
  device is not there.

  ## Examples

      iex> Mlx.from_binary(<<1, 2, 3, 4>>, {2, 2}, :u8)
      #Nx.Tensor<
        u8[2][2]
        [
          [1, 2],
          [3, 4]
        ]
      >

  """
  @spec from_binary(bitstring, tuple, Nx.Type.t() | Nx.Type.short_t(), keyword) :: Nx.Tensor.t()
  def from_binary(binary, shape, type, opts \\ [])
      when is_bitstring(binary) and is_tuple(shape) do
    out = Nx.template(shape, type)
    Mlx.Backend.from_binary(out, binary, Mlx.Backend.init(opts))
  end

  @doc """
  The values of a tensor in native byte order.

  Waits until they are computed. Large tensors are not copied where the host can see
  the memory of the device: the binary keeps that memory for as long as it lives.

  ## Examples

      iex> Mlx.to_binary(Mlx.from_binary(<<1, 2, 3>>, {3}, :u8))
      <<1, 2, 3>>

  """
  @spec to_binary(Nx.Tensor.t()) :: binary
  def to_binary(%T{} = tensor), do: tensor |> check!() |> Dispatch.read()

  @doc """
  The shape of the array that MLX holds, vectorized axes included.

  Waits until the array is made, though not until it is computed.

  ## Examples

      iex> Mlx.shape(Mlx.from_binary(<<1, 2, 3>>, {3, 1}, :u8))
      {3, 1}

  """
  @spec shape(Nx.Tensor.t()) :: tuple
  def shape(%T{} = tensor), do: tensor |> check!() |> Dispatch.signature() |> elem(1)

  @doc """
  The type of the array that MLX holds, such as `:f32` or `:bf16`.

  It differs from that of the tensor where MLX or the device lacks that: see
  [Types](Mlx.Backend.html#module-types). Waits until the array is made, though not until it is
  computed.

  ## Examples

      iex> Mlx.dtype(Mlx.from_binary(<<1, 2, 3>>, {3}, :u8))
      :u8

  """
  @spec dtype(Nx.Tensor.t()) :: atom
  def dtype(%T{} = tensor), do: tensor |> check!() |> Dispatch.signature() |> elem(0)

  @doc """
  Computes all tensors of a container and waits for them. Returns the container.

  Raises `Mlx.Error` if one of them could not be computed.

  ## Examples

      iex> %{sum: sum} = Mlx.eval(%{sum: Nx.add(Nx.tensor([1, 2], backend: Mlx.Backend), 1)})
      iex> Nx.to_list(sum)
      [2, 3]

  """
  @spec eval(container) :: container when container: Nx.Container.t() | Nx.Tensor.t()
  def eval(container) do
    container |> tensors() |> Dispatch.eval()
    container
  end

  @doc """
  Starts to compute all tensors of a container. Returns the container at once; failures show
  where the tensors are read.

  ## Examples

      iex> tensor = Mlx.async_eval(Nx.add(Nx.tensor([1, 2], backend: Mlx.Backend), 1))
      iex> Nx.to_list(tensor)
      [2, 3]

  """
  @spec async_eval(container) :: container when container: Nx.Container.t() | Nx.Tensor.t()
  def async_eval(container) do
    container |> tensors() |> Enum.each(&Dispatch.async_eval/1)
    container
  end

  @doc """
  Waits for all work queued so far on the stream that all share on a device, or on a
  `Mlx.Stream`, see `Mlx.Stream.synchronize/1`.

  ## Examples

      iex> Mlx.synchronize(:cpu)
      :ok

  """
  @spec synchronize(Mlx.Stream.t() | Mlx.Device.t() | nil) :: :ok
  defdelegate synchronize(stream \\ nil), to: Mlx.Stream

  defp tensors(container) do
    container |> List.wrap() |> Nx.Defn.Composite.flatten_list() |> Enum.map(&check!/1)
  end

  defp check!(%T{data: %Mlx.Backend{}} = tensor), do: tensor

  defp check!(%T{data: %backend{}}) do
    raise ArgumentError,
          "expected a tensor of Mlx.Backend, got one of #{inspect(backend)}; " <>
            "move it with Nx.backend_transfer(tensor, Mlx.Backend)"
  end
end
