defmodule Mlx.Backend do
  @moduledoc """
  The `Nx.Backend` that keeps tensors in MLX and computes with it.

  To use it for all tensors of the current process:

      Nx.default_backend(Mlx.Backend)

  or for all processes, in `config/config.exs`:

      config :nx, :default_backend, Mlx.Backend

  Operations return at once; the computation goes on behind the caller's back, in the
  order of the calls, until a result is read. See `Mlx.Error` for when failures show, and
  the [backend documentation](backend_documentation.html) for each of Nx's functions: what
  it supports, and what may surprise.

  ## Options

    * `:device` - `:gpu` or `:cpu`. Defaults to `Mlx.Device.default/0`, the GPU where
      there is one. See `Mlx.Device` for operations on tensors of different devices.

  ## Reading

  `Nx.to_binary/2` gives the values without a copy where the host can see the memory
  of the device. Such a binary keeps the tensor's memory for as long as it lives; use
  `:binary.copy/1` to keep a small part of a large tensor.

  ## Configuration

  See `Mlx` for the options of `config :mlx`.

  ## Functions given to `Nx.reduce/4` and `Nx.window_reduce/5`

  Such a function is called once, with tensors that stand for every element, and what it
  does to them then runs on whole slices, in the order in which Nx folds. It may contain

    * operations on single elements, such as `Nx.add/2`, `Nx.select/3` or `Nx.as_type/2`
    * numbers, and scalar tensors from outside

  Anything else raises `Mlx.Error` with `kind: :unsupported`, among it reading a value
  with `Nx.to_number/1`, and so `if` and `while` of `Nx.Defn`: use `Nx.select/3`. Steps
  follow each other, so `Nx.sum/2` and the like are much faster where they will do.

  ## Linear algebra

  `Nx.LinAlg` and `Nx.dot/2` are native for every type. MLX factorizes matrices on the
  CPU only, so on a GPU the operands go there and back, while the GPU goes on with what
  does not wait for them.

  Where Nx raises because of what is in a matrix, the result is NaN, as there is nobody
  to raise to when it is found: of `cholesky` if the matrix is not positive-definite,
  of `solve` and `triangular_solve` if it is singular. Factors of a matrix with NaN or
  infinities are NaN. In a batch this is so for each matrix by itself.

  `eigh`, `svd`, `cholesky` and `qr` are LAPACK's, which is more accurate than Nx's
  iterations: `:max_iter` of `eigh` and `svd`, and `:eps` of `eigh`, change nothing.
  Eigenvectors and singular vectors have a sign, or a phase, in which their largest
  element is positive. `lu` and `qr` of complex matrices, and `qr` with `mode: :complete`
  of matrices with more rows than columns, go column by column and are slower.

  ## Types

  All of Nx's but `c128`. MLX lacks `f8`, `f8_e4m3fn` and integers of 2 and 4 bits: they
  are computed in wider types and rounded to the values of their own after each
  operation.

  `f64` is there on the CPU. GPUs lack it: there it raises `Mlx.Error` with `kind: :type`,
  unless `config :mlx, f64: :downcast` is set. Then such a tensor is one of `f32` on a GPU.
  Nx goes on to call it `f64`, and to the outside it has the bytes of `f64`, but only the
  precision and the range of `f32`: what is larger becomes an infinity. On the CPU, and
  for tensors that move there, nothing changes.

  Sums and products are made in the type of the result, those of halves in `f32`, and in
  the order that is fastest. `Nx.BinaryBackend` makes them in double precision, so a long
  product may be infinite or NaN on the way where it still finds a number.

  ## Pointers

  `Nx.to_pointer/2` computes the tensor and takes

    * `:mode` - `:local`, the default, gives the address of the tensor's own memory, in
      row order. `:ipc` copies the values to POSIX shared memory; the handle is its name.
    * `:permissions` - who may open the shared memory, `0o400` by default, less what the
      umask of the process forbids

  Both last as long as the tensor: once it is deallocated or collected as garbage, the
  address must not be used and the name is gone. A variable that is not used any more
  keeps nothing: use the tensor again after the last use of its pointer. A VM that is
  killed leaves its shared memory behind.

  Others may read a tensor's memory. They must not write to it: views and copies share it,
  and the results of operations that are still queued would change.

  The address is there where the host sees the memory of the device: on CPUs and on Apple
  GPUs, but not on NVIDIA's. It is not there for types that are computed in wider ones.
  Both raise `Mlx.Error` with `kind: :unsupported`; `:ipc` is there everywhere.

  `Nx.from_pointer/5` copies the values before it returns, on every device and for every
  type. Shared memory may come from any program. An address must
  be one of memory that this process may read and that nobody changes meanwhile. One that
  can't be read raises `Mlx.Error` with `kind: :io`, but no check finds memory that is
  something else.
  """

  @behaviour Nx.Backend

  alias __MODULE__, as: B
  alias Mlx.{Dispatch, Pointer}
  alias Nx.Tensor, as: T

  @enforce_keys [:ref, :device]
  defstruct [:ref, :device, :deferred]

  # A quantized tensor has, instead of an array, what makes one of the arrays of its parts.
  @type t :: %__MODULE__{
          ref: reference | nil,
          device: Mlx.Device.t(),
          deferred: {node :: struct, [reference]} | nil
        }

  ## Creation

  @impl true
  def init(opts), do: [device: device(opts)]

  @impl true
  def constant(out, number, opts), do: Dispatch.create(:constant, out, [number], device(opts))

  @impl true
  def iota(out, axis, opts), do: Dispatch.create(:iota, out, [axis], device(opts))

  @impl true
  def eye(out, opts), do: Dispatch.create(:eye, out, [], device(opts))

  @impl true
  def from_binary(out, binary, opts), do: Dispatch.from_binary(out, binary, device(opts))

  # Nx passes the options of a single call here without `init/1`.
  defp device([]), do: Mlx.Device.default()
  defp device(device: device) when is_atom(device), do: known_device(device)
  defp device(opts), do: opts |> Keyword.validate!([:device]) |> device()

  defp known_device(nil), do: Mlx.Device.default()
  defp known_device(device) when device in [:cpu, :traced], do: device
  defp known_device(device), do: Mlx.Device.check!(device)

  ## Conversion

  @impl true
  def to_binary(%T{} = tensor, limit) do
    size = tensor |> whole_shape() |> Tuple.product()

    if limit < size,
      do: tensor |> first(size, limit) |> Dispatch.read(),
      else: Dispatch.read(tensor)
  end

  # On the device, so that only what is asked for is read.
  defp first(tensor, size, limit) do
    tensor = %{tensor | shape: whole_shape(tensor), vectorized_axes: []}
    flat = Dispatch.run(:reshape, %{tensor | shape: {size}, names: [nil]}, [tensor])
    Dispatch.run(:slice, %{flat | shape: {limit}}, [flat, [0], [limit], [1]])
  end

  @doc false
  # The shape of the array, which vectorized axes lead.
  def whole_shape(%T{vectorized_axes: [], shape: shape}), do: shape

  def whole_shape(%T{vectorized_axes: axes, shape: shape}) do
    List.to_tuple(Keyword.values(axes) ++ Tuple.to_list(shape))
  end

  @impl true
  def inspect(%T{} = tensor, opts) do
    if Mlx.Config.get(:inspect) == :eager or Dispatch.computed?(tensor),
      do: inspect_values(tensor, opts),
      else: add_backend("not computed", tensor)
  end

  defp inspect_values(tensor, opts) do
    limit = if opts.limit == :infinity, do: :infinity, else: opts.limit + 1
    binary = to_binary(tensor, min(limit, tensor |> whole_shape() |> Tuple.product()))
    tensor |> Nx.Backend.inspect(binary, opts) |> add_backend(tensor)
  end

  if Application.compile_env(:mlx, :add_backend_on_inspect, true) do
    defp add_backend(doc, %T{data: %B{device: device}}) do
      Inspect.Algebra.concat(["Mlx.Backend<#{device}>", Inspect.Algebra.line(), doc])
    end
  else
    defp add_backend(doc, _tensor), do: doc
  end

  @impl true
  def to_batched(out, tensor, opts) do
    size = elem(out.shape, 0)
    count = div(elem(tensor.shape, 0), size)
    rest = rem(elem(tensor.shape, 0), size)
    full = Stream.map(0..(count - 1)//1, &rows(tensor, &1 * size, size))

    if rest > 0 and opts[:leftover] == :repeat do
      Stream.concat(full, Stream.map([:wrapped], fn _ -> wrapped(out, tensor, size - rest) end))
    else
      full
    end
  end

  defp rows(tensor, start, count) do
    [_ | lengths] = Tuple.to_list(tensor.shape)
    out = %{tensor | shape: put_elem(tensor.shape, 0, count)}
    starts = [start | Enum.map(lengths, fn _ -> 0 end)]
    strides = Enum.map(starts, fn _ -> 1 end)
    Dispatch.run(:slice, out, [tensor, starts, [count | lengths], strides])
  end

  defp wrapped(out, tensor, missing) do
    size = elem(tensor.shape, 0)
    rest = elem(out.shape, 0) - missing

    Dispatch.run(:concatenate, out, [
      [rows(tensor, size - rest, rest), rows(tensor, 0, missing)],
      0
    ])
  end

  ## Memory

  @impl true
  def backend_copy(%T{} = tensor, __MODULE__, opts), do: Dispatch.copy(tensor, device(opts))

  def backend_copy(%T{} = tensor, backend, opts) do
    backend.from_binary(tensor, Dispatch.read(tensor), opts)
  end

  @impl true
  def backend_transfer(%T{data: %B{device: device}} = tensor, backend, opts) do
    if backend == __MODULE__ and device == device(opts) do
      tensor
    else
      copy = backend_copy(tensor, backend, opts)
      backend_deallocate(tensor)
      copy
    end
  end

  @impl true
  def backend_deallocate(%T{} = tensor) do
    # All of them go, so that none is looked at twice.
    freed =
      for ref <- Dispatch.arrays(tensor), do: Dispatch.ok!(Mlx.Native.tensor_deallocate(ref))

    if Enum.any?(freed), do: :ok, else: :already_deallocated
  end

  ## Pointers

  @impl true
  def to_pointer(tensor, opts), do: Pointer.to_pointer(tensor, opts)

  @impl true
  def from_pointer(pointer, type, shape, backend_opts, opts) do
    Pointer.from_pointer(pointer, type, shape, device(backend_opts), opts)
  end

  ## Operations

  @impl true
  def block(struct, out, args, fun), do: Dispatch.run_block(struct, out, args, fun)

  @impl true
  def reduce(out, tensor, acc, opts, fun) do
    Dispatch.run_fold(:reduce, out, [tensor, acc, fun, opts])
  end

  @impl true
  def window_reduce(out, tensor, acc, sizes, opts, fun) do
    Dispatch.run_fold(:window_reduce, out, [tensor, acc, fun, sizes, opts])
  end

  callbacks = Nx.Backend.behaviour_info(:callbacks)

  written =
    [init: 1, constant: 3, iota: 3, eye: 2, from_binary: 3, to_binary: 2, inspect: 2] ++
      [to_batched: 3, backend_copy: 3, backend_transfer: 3, backend_deallocate: 1, block: 4] ++
      [reduce: 5, window_reduce: 6, to_pointer: 2, from_pointer: 5]

  lowered = for op <- Mlx.Lowering.ops(), op not in Keyword.keys(written), do: op

  for {name, arity} <- callbacks, name in lowered do
    args = Macro.generate_arguments(arity - 1, __MODULE__)

    @impl true
    def unquote(name)(out, unquote_splicing(args)) do
      Dispatch.run(unquote(name), out, [unquote_splicing(args)])
    end
  end

  case Keyword.keys(callbacks) -- (Keyword.keys(written) ++ lowered) do
    [] -> :ok
    missing -> raise "callbacks of Nx.Backend that Mlx.Backend lacks: #{inspect(missing)}"
  end
end
