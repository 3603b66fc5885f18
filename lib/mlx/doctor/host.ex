defmodule Mlx.Doctor.Host do
  @moduledoc false

  # The machine and what Mlx doesn't bring along.

  import Mlx.Doctor, only: [ok: 2, warning: 3, error: 3]

  @elixir "1.18.0"
  @otp 26

  def platform, do: platform(:os.type(), to_string(:erlang.system_info(:system_architecture)))

  @doc false
  def platform({:unix, :linux}, "x86_64" <> _), do: ok("platform", "Linux x86-64")

  def platform({:unix, system}, "a" <> _ = architecture) when system in [:linux, :darwin] do
    name = if system == :linux, do: "Linux aarch64", else: "macOS arm64"

    if architecture =~ ~r/^(aarch64|arm64)/,
      do: warning("platform", name, "nobody has tested Mlx here; please tell what doesn't work"),
      else: unsupported(architecture)
  end

  def platform(_system, architecture), do: unsupported(architecture)

  defp unsupported(architecture) do
    error(
      "platform",
      "#{architecture} has no MLX",
      "use Linux on x86-64 or aarch64, or macOS on Apple silicon"
    )
  end

  def elixir, do: elixir(System.version(), System.otp_release())

  @doc false
  def elixir(version, otp) do
    message = "#{version} on OTP #{otp}"

    if Version.match?(version, ">= #{@elixir}", allow_pre: true) and
         String.to_integer(otp) >= @otp,
       do: ok("Elixir", message),
       else: error("Elixir", message, "use Elixir #{@elixir} on OTP #{@otp} or newer")
  end

  @doc """
  Whether `fuse: true` can be had on the CPU.
  """
  def compiler do
    advice = "install g++; without it `fuse: true` runs programs unfused on the CPU"

    case System.find_executable("g++") do
      nil ->
        warning("compiler", "there is no g++ in the PATH", advice)

      path ->
        case run(path, ["-dumpfullversion"]) do
          {version, 0} -> ok("compiler", "g++ #{String.trim(version)} in #{path}")
          {_, status} -> warning("compiler", "#{path} ends with #{inspect(status)}", advice)
        end
    end
  end

  @doc """
  The output and the status of a command, or why it can't be run.
  """
  def run(command, args) do
    System.cmd(command, args, stderr_to_stdout: true)
  rescue
    error in ErlangError -> {"", error.original}
  end
end
