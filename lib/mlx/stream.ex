defmodule Mlx.Stream do
  @moduledoc """
  A queue of work on a device.

  Work of one stream runs in order; streams run beside each other. Every device has one
  that all processes share. A stream of its own is for work that had better not wait for
  that of others, such as requests that are served side by side:

      stream = Mlx.Stream.new(:cpu)
      Nx.Defn.jit(fun, compiler: Mlx.Compiler, stream: stream)

  Tensors belong to no stream: what one makes the others can use, and weights are shared
  between streams without a copy. A stream is closed by letting go of it.
  """

  @enforce_keys [:ref, :device]
  defstruct [:ref, :device]

  @type t :: %__MODULE__{ref: reference, device: Mlx.Device.t()}

  @doc """
  Makes a stream, on `Mlx.Device.default/0` if no device is given.

  ## Examples

      iex> stream = Mlx.Stream.new(:cpu)
      iex> sum = Nx.Defn.jit(&Nx.add/2, compiler: Mlx.Compiler, stream: stream)
      iex> sum.(1, 2) |> Nx.to_number()
      3

  """
  @spec new(Mlx.Device.t() | nil) :: t
  def new(device \\ nil) do
    device = Mlx.Device.check!(device || Mlx.Device.default())
    %__MODULE__{ref: Mlx.Dispatch.ok!(Mlx.Native.stream_new(device)), device: device}
  end

  @doc false
  # A device stands for the stream that all share on it.
  def device(%__MODULE__{device: device}), do: device
  def device(device), do: device

  @doc false
  def target(%__MODULE__{ref: ref}), do: ref
  def target(device), do: device
end
