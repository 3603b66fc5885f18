defmodule Mlx.Stream do
  @moduledoc """
  A queue of work on a device.

  Work of one stream runs in order; streams run beside each other. Every device has one
  that all processes share. A stream of its own is for work that had better not wait for
  that of others, such as requests that are served side by side:

      stream = Mlx.Stream.new(:cpu)

      Mlx.Stream.with_stream(stream, fn ->
        Nx.dot(a, b)
      end)

      Nx.Defn.jit(fun, compiler: Mlx.Compiler, stream: stream)

  Tensors belong to no stream: what one makes the others can use, from any process and at
  any time, and weights are shared between streams without a copy. What a stream needs of
  another it waits for.

  Each stream has a thread of its own for as long as it is in use. Letting go of it is
  enough to give it back, for the next stream: when the last process has no reference to the
  stream any more, or with `close/1`. Threads never end, so a program has as many as it has
  had streams at once, and a few more. There may be 1024 at once.

  The guide [Devices and streams](devices_and_streams.html) shows more.
  """

  alias Mlx.{Device, Dispatch, Native}

  @enforce_keys [:ref, :device]
  defstruct [:ref, :device]

  @typedoc "A stream, which lasts as long as something refers to it."
  @type t :: %__MODULE__{ref: reference, device: Device.t()}

  @doc """
  Makes a stream, on `Mlx.Device.default/0` if no device is given.

  Raises `Mlx.Error` with `kind: :device` if the device is not there, or if there are 1024
  streams already.

  ## Examples

      iex> stream = Mlx.Stream.new(:cpu)
      iex> sum = Nx.Defn.jit(&Nx.add/2, compiler: Mlx.Compiler, stream: stream)
      iex> sum.(1, 2) |> Nx.to_number()
      3

  """
  @spec new(Device.t() | nil) :: t
  def new(device \\ nil) do
    device = Device.check!(device || Device.default())
    %__MODULE__{ref: Dispatch.ok!(Native.stream_new(device)), device: device}
  end

  @doc """
  Runs a function so that what this process computes in it runs on the stream, and gives
  what the function returns.

  That is so for operations on the device of the stream, and for functions that
  `Mlx.Compiler` has compiled for it without a stream of their own. Work on other devices
  goes to the streams that all share there. `Mlx.Device.default/0` is the device of the
  stream. `nil` stands for the streams that all share.

  It may be nested: the innermost counts, and the one before it again after the function,
  also if it raises. It changes nothing for other processes, so processes that the
  function starts run on the streams that all share unless they call this themselves, but
  for `Mlx.Generation.start/3`, which does.

  ## Examples

      iex> Mlx.Stream.with_stream(Mlx.Stream.new(:cpu), fn ->
      ...>   Nx.to_number(Nx.add(Nx.tensor(1, backend: {Mlx.Backend, device: :cpu}), 1))
      ...> end)
      2

  """
  @spec with_stream(t | nil, (-> result)) :: result when result: term
  def with_stream(stream, fun)
      when (is_struct(stream, __MODULE__) or stream == nil) and is_function(fun, 0) do
    outer = Process.put(__MODULE__, stream)

    try do
      fun.()
    after
      if outer, do: Process.put(__MODULE__, outer), else: Process.delete(__MODULE__)
    end
  end

  @doc """
  The stream of the innermost `with_stream/2` that this process is in, or `nil`.

  ## Examples

      iex> Mlx.Stream.current()
      nil
      iex> stream = Mlx.Stream.new(:cpu)
      iex> Mlx.Stream.with_stream(stream, &Mlx.Stream.current/0) == stream
      true

  """
  @spec current() :: t | nil
  def current, do: Process.get(__MODULE__)

  @doc """
  Waits until all is computed that was queued so far on a stream.

  A device stands for the stream that all share on it, and `nil`, the default, for
  `current/0` or else for that of `Mlx.Device.default/0`. What other streams of the device
  do is not waited for.

  Raises `Mlx.Error` if the stream is closed.

  ## Examples

      iex> Mlx.Stream.synchronize(Mlx.Stream.new(:cpu))
      :ok
      iex> Mlx.Stream.synchronize(:cpu)
      :ok

  """
  @spec synchronize(t | Device.t() | nil) :: :ok
  def synchronize(stream \\ nil)
  def synchronize(%__MODULE__{ref: ref}), do: Dispatch.synchronize(ref)
  def synchronize(nil), do: synchronize(current() || Device.default())
  def synchronize(device), do: device |> Device.check!() |> Dispatch.synchronize()

  @doc """
  Closes a stream, so that its thread is there for others at once.

  What is queued is still computed, and tensors made on the stream stay as good as others.
  Whoever gives the stream new work gets a `Mlx.Error` with `kind: :device`. Closing it
  again does nothing. Nobody has to close a stream: letting go of it is enough.

  ## Examples

      iex> stream = Mlx.Stream.new(:cpu)
      iex> Mlx.Stream.close(stream)
      :ok
      iex> Mlx.Stream.synchronize(stream)
      ** (Mlx.Error) the stream is closed

  """
  @spec close(t) :: :ok
  def close(%__MODULE__{ref: ref}), do: Dispatch.ok!(Native.stream_close(ref))

  @doc false
  # Where the work of this process for a device goes. Every operation asks.
  def target(device) do
    case :erlang.get(__MODULE__) do
      %__MODULE__{device: ^device, ref: ref} -> ref
      _none_or_of_another_device -> device
    end
  end
end
